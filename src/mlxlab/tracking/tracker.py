"""What a run tells about itself, and `NoTracker`, which listens to nothing."""

from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """Records one run. No method raises because a store is slow, broken or absent."""

    uid: str  # 32 hex digits, the same after a resume; "" if nothing is recorded

    def start(
        self, params: dict[str, Any], tags: dict[str, str], *, resumed: bool = False, name: str | None = None
    ) -> None: ...

    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    def tag(self, tags: dict[str, str]) -> None: ...

    def dataset(self, name: str, fingerprint: str, source: str, context: str = "training") -> None: ...

    def artifact(self, path: Path, to: str = "") -> None: ...

    def model(
        self,
        checkpoint: Path,
        *,
        name: str = "best",
        step: int | None = None,
        files: dict[str, Path] | None = None,
        signature: dict[str, Any] | None = None,
        example: list[dict[str, Any]] | None = None,
    ) -> None: ...

    def rewind(self, step: int) -> None: ...

    def end(self, status: Status) -> None: ...

    def describe(self) -> list[str]: ...


class NoTracker:
    """Records nothing. Stands wherever a tracker is expected and none is."""

    uid = ""

    def start(
        self, params: dict[str, Any], tags: dict[str, str], *, resumed: bool = False, name: str | None = None
    ) -> None: ...

    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    def tag(self, tags: dict[str, str]) -> None: ...

    def dataset(self, name: str, fingerprint: str, source: str, context: str = "training") -> None: ...

    def artifact(self, path: Path, to: str = "") -> None: ...

    def model(
        self,
        checkpoint: Path,
        *,
        name: str = "best",
        step: int | None = None,
        files: dict[str, Path] | None = None,
        signature: dict[str, Any] | None = None,
        example: list[dict[str, Any]] | None = None,
    ) -> None: ...

    def rewind(self, step: int) -> None: ...

    def end(self, status: Status) -> None: ...

    def describe(self) -> list[str]:
        return ["tracking: none"]
