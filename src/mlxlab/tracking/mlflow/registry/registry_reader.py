"""What can be read of a model registry, through MLflow or from the database itself."""

from typing import Protocol

from mlxlab.tracking.mlflow.registry.model_registry import AliasMove, Version


class RegistryReader(Protocol):
    """Reads a model registry."""

    def names(self) -> list[str]:
        """Registered models."""

    def aliases(self, name: str) -> dict[str, int]:
        """alias -> version"""

    def versions(self, name: str) -> list[Version]:
        """Newest first."""

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters of a run, by their keys in its config; empty if the store has no such run."""

    def moves(self, name: str) -> list[AliasMove]:
        """Moves of aliases that mlxlab made, oldest first; DataError if one is damaged."""
