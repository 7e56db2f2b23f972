"""The interface of a tracker, and the tracker that records nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]
Context = Literal["training", "validation", "test"]
# Tags of a run. Others of ours have the same prefix; those of the user have none.
OVERRIDES = "mlxlab.overrides"
OBJECTIVE = "mlxlab.objective"


class Tracker(Protocol):
    """Records one run.

    `start` comes first and `end` last; the caller calls all methods from one thread. After `start` no method raises
    because a store is slow, broken or unreachable, and none waits for one but `end`. Files and folders that are passed
    must stay until the run has been uploaded.
    """

    @property
    def uid(self) -> str:
        """The run's id: 32 hex digits, the same after a resume; "" if nothing is recorded."""

    def start(
        self,
        params: Mapping[str, object],
        tags: dict[str, str],
        *,
        resumed: bool = False,
        name: str | None = None,
    ) -> None:
        """Opens the run.

        Args:
            params: nested config; recorded flat, as `a.b.0`.
            tags: added to those on user, program and commit.
            resumed: continues the run that was recorded in this run folder.
            name: display name; None takes the folder's name.

        Raises:
            CannotCreateError: the run cannot be recorded in its folder, or another process is recording it.
            DataError: what was recorded of the run to resume is damaged.
        """

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Records values at an optimizer step, NaN and infinities included."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """Adds tags, or replaces their values."""

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: str,
        context: Context = "training",
        schema: str = "",
        profile: Mapping[str, int] | None = None,
    ) -> None:
        """Records the data of a split.

        Args:
            source: a path or a URL, from which MLflow loads it.
            schema: JSON list of its columns, as in the signature of a model.
            profile: sizes by name, such as `num_rows`.
        """

    def log_artifact(self, path: Path, to: str = "") -> None:
        """Records a file or folder of the run folder, below `to` of the run's artifacts."""

    def log_model(
        self, checkpoint: Path, step: int, files: dict[str, Path], signature: dict[str, str] | None
    ) -> None:
        """Records the best checkpoint as a model that `mlflow.pyfunc.load_model` loads.

        Args:
            checkpoint: folder; the artifact `checkpoint` of the model.
            step: optimizer step at which it was saved.
            files: further artifacts of the model by name.
            signature: MLflow's, as a dict: `{"inputs": "<json>", "outputs": "<json>"}`.
        """

    def truncate_after(self, step: int) -> None:
        """Takes back metrics of later steps (-1: all), which a resumed run logs again; WriteError if it cannot."""

    def end(self, status: Status) -> None:
        """Closes the run; may wait for the store."""

    def describe(self) -> list[str]:
        """Lines for the user: where the run is recorded."""


class NoTracker:
    """Records nothing."""

    uid = ""

    def _ignore(self, *args: object, **kwargs: object) -> None: ...

    start = log_metrics = set_tags = log_dataset = log_artifact = log_model = truncate_after = (
        end
    ) = _ignore

    def describe(self) -> list[str]:
        return ["tracking: none"]
