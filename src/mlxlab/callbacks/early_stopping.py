"""Stops a run that no longer gets better."""

from mlxlab.constraints import NonNegative, Size
from mlxlab.training.state import Run


class EarlyStopping:
    """Stops once the best value of the objective is `patience` evaluations old. The best checkpoint is what is kept.

    Args:
        patience: evaluations without a better one; null never stops.
        min_delta: what a value must be better by to count as better.
    """

    decides = True  # the same in every process of a run, so each must ask it

    def __init__(self, patience: Size | None, min_delta: NonNegative) -> None:
        self.patience = patience
        self.min_delta = min_delta

    def on_start(self, run: Run) -> None:
        self.on_step(run)

    def on_step(self, run: Run) -> None:
        # Derived from the history of the run: there is no counter that a resume could lose.
        if self.patience is not None and not run.stop and self._age(run) >= self.patience:
            run.stop = f"early: no better {run.objective.name} in {self.patience} evaluations"

    def on_end(self, run: Run) -> None: ...

    def _age(self, run: Run) -> int:
        best, age = None, 0
        for _, value in run.history:
            if run.objective.better(value, best, by=self.min_delta):
                best, age = value, 0
            else:
                age += 1
        return age
