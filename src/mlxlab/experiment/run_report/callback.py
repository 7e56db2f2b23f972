"""The option `callbacks.report`: whether a run writes a report, and with what."""

from collections.abc import Iterable

from mlxlab.constraints import Count
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState


class RunReport(Callback):
    """Writes `report.html` when the run has ended, however it did; without this callback nothing is written.

    Args:
        samples: texts that a language model generates at the end, 0 for none; they take half a second at most.
        sample_tokens: max tokens of each.
    """

    def __init__(self, samples: Count, sample_tokens: Count) -> None:
        self.samples, self.sample_tokens = samples, sample_tokens

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        """Imports the report, which takes 30 ms: after the first step, as the source may change before the end."""
        from mlxlab.experiment.run_report import write  # noqa: F401

    def needs_sync(self, state: TrainState) -> bool:
        return False


def find_report(callbacks: Iterable[Callback]) -> RunReport | None:
    """The first of these callbacks."""
    return next((each for each in callbacks if isinstance(each, RunReport)), None)
