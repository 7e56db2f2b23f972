"""The shape of `state.json`: what a checkpoint holds besides the arrays of model and optimizer."""

from typing import Any, TypedDict

from mlxlab.constraints import Count, Size


class ProgressState(TypedDict):
    """See `mlxlab.training.state.Progress`."""

    step: Count
    samples: Count
    tokens: Count
    nonfinite_steps: Count
    consecutive_nonfinite: Count
    rollbacks: Count
    batch_sizes: list[tuple[Count, Size]]


class HistoryState(TypedDict):
    """See `mlxlab.training.state.History`. Metrics may be NaN."""

    evaluations: list[tuple[Count, float]]
    curve: list[tuple[Count, dict[str, float]]]
    best: float | None
    best_step: Count
    best_metrics: dict[str, float]
    best_confusion: list[list[int]]
    reference: dict[str, dict[str, float]]


class RunningState(TypedDict):
    """See `mlxlab.training.state.RunningTotals`."""

    loss: float
    weight: float
    grad_norm: float
    steps: Count
    tokens: Count
    token_slots: Count
    terms: dict[str, float]


class TrainingState(TypedDict):
    """The state that training restores. `data` is checked by the loader that it belongs to."""

    progress: ProgressState
    history: HistoryState
    running: RunningState
    data: dict[str, object]


class RunMetadata(TypedDict):
    """Metadata of the run in a checkpoint, to be resumed, verified and compared later.

    Fingerprints and digests are hexadecimal. `config` is checked against the allowlist where it is used.
    """

    config: dict[str, Any]
    config_hash: str
    choices: dict[str, str]  # config group -> option
    versions: dict[str, str]  # package -> version
    data: str  # fingerprint
    held_out: str  # fingerprint of the validation examples
    tokenizer: str  # fingerprint
    teachers: dict[str, str]  # name -> digest of the weights
    uid: str  # of the run in the tracking store, "" if it is not tracked


class CheckpointState(TrainingState):
    """The whole document."""

    metadata: RunMetadata


def empty_metadata() -> RunMetadata:
    """The metadata of training without a run folder."""
    return RunMetadata(
        config={}, config_hash="", choices={}, versions={}, data="", held_out="", tokenizer="", teachers={}, uid=""
    )
