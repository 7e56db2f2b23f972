"""A callback that compares the student with its teachers at the end of a run."""

import sys
import time
from collections.abc import Iterable
from itertools import islice

from mlxlab.data.batch import Batch, Task
from mlxlab.distillation.teachers import Teachers
from mlxlab.models.model import count_parameters
from mlxlab.training.callback import FitContext
from mlxlab.training.evaluate import evaluate
from mlxlab.training.state import StepResult, TrainState


class DistillationReport:
    """Checks that training left the teachers unchanged, and evaluates student and teachers on the same batches.

    The metrics go to `history.reference`, and from there into the report of the run. Runs in all processes, so that
    none waits for another.

    Args:
        max_batches: validation batches to evaluate; None takes all.
    """

    runs_on_all_ranks = True

    def __init__(self, teachers: Teachers, valid: Iterable[Batch], task: Task, max_batches: int | None) -> None:
        self.teachers, self.valid, self.task, self.max_batches = teachers, valid, task, max_batches
        self._digest = ""

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self._digest = self.teachers.digest()

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None: ...

    def on_end(self, context: FitContext, state: TrainState) -> None:
        assert self.teachers.digest() == self._digest, "training changed the teachers"
        print(f"teachers unchanged: {self._digest[:16]}", file=sys.stderr)
        if self.teachers.cache is not None:
            print(self.teachers.cache.describe(), file=sys.stderr)
        if self.teachers and context.control.stop_reason == "done":
            state.history.reference = self._compare(context, state)

    def _compare(self, context: FitContext, state: TrainState) -> dict[str, dict[str, float]]:
        """Metrics, parameters and milliseconds per batch of student and teacher; empty if a signal interrupts it."""
        batches = list(islice(self.valid, self.max_batches))
        metrics: dict[str, dict[str, float]] = {}
        with state.eval_weights():
            for name, model in {"student": state.model, "teacher": self.teachers.ensemble}.items():
                evaluate(model, batches, self.task, limit=1)  # compiles
                start = time.perf_counter()
                evaluation = evaluate(model, batches, self.task, should_stop=lambda: context.control.stop_signal != 0)
                if evaluation is None:
                    return {}
                speed = 1000 * (time.perf_counter() - start) / max(len(batches), 1)
                sizes = {"parameters": float(count_parameters(model)), "ms per batch": speed}
                metrics[name] = {**evaluation.metrics, **sizes}
        return metrics
