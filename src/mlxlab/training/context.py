"""The objects that the callbacks of a run share: requests to the loop, and constants of the run."""

from dataclasses import dataclass, field

from mlxlab.checkpoint.state import RunMetadata, empty_metadata
from mlxlab.distributed.process_group import ProcessGroup, SingleProcess
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.state import MonitoredMetric, TrainState
from mlxlab.training.timer import ThroughputTimer


@dataclass
class Control:
    """Requests to the loop. It acts on them after the current step; they are never saved.

    Attributes:
        stop_reason: ends the run; empty while there is no reason. `done` when a limit of the trainer was reached.
        stop_signal: number of the signal that asks to stop, 0 if none does.
        save_requested: asks for a checkpoint of the current step.
    """

    stop_reason: str = ""
    stop_signal: int = 0
    save_requested: bool = False


@dataclass(frozen=True)
class FitContext:
    """Passed to every callback.

    Attributes:
        labels: names of the classes.
        metadata: what a checkpoint must carry to be understood later: the config, versions, fingerprints.
    """

    monitor: MonitoredMetric
    tracker: Tracker = field(default_factory=NoTracker)
    control: Control = field(default_factory=Control)
    group: ProcessGroup = field(default_factory=SingleProcess)
    labels: tuple[str, ...] = ()
    metadata: RunMetadata = field(default_factory=empty_metadata)
    timer: ThroughputTimer = field(default_factory=ThroughputTimer)

    def log(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Logs metrics of the current step: to the tracker, and to the history for callbacks and plots."""
        self.tracker.log_metrics(state.progress.step, metrics)
        state.history.add_metrics(state.progress.step, metrics)
