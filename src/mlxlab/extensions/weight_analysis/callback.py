"""Analyses the weights at every evaluation in a background thread."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import psutil
from mlx.utils import tree_map
from threadpoolctl import ThreadpoolController

from mlxlab.schema.constraints import Fraction, Size
from mlxlab.terminal.wording import percent
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.device_batch import to_device
from mlxlab.training.state import StepResult, TrainState

if TYPE_CHECKING:
    from mlxlab.extensions.weight_analysis.snapshot import Snapshot

logger = logging.getLogger(__name__)

Kind = Literal["embedding", "rank", "drift", "updates", "attention"]
SECONDS = "analysis/seconds"
PAUSE_SECONDS = "analysis/pause_seconds"


class AnalysisJob(threading.Thread):
    """Computes the metrics of a step; once it has ended, `metrics` or `error` is set."""

    def __init__(self, step: int, compute: Callable[[], dict[str, float]]) -> None:
        super().__init__(name="analysis", daemon=True)
        self.step = step
        self.metrics: dict[str, float] = {}
        self.error: Exception | None = None
        self._compute = compute

    def run(self) -> None:
        start = time.perf_counter()
        try:
            with one_numpy_thread():
                metrics = self._compute()
        except Exception as error:
            self.error = error
        else:
            self.metrics = metrics | {"analysis/seconds": time.perf_counter() - start}


@contextmanager
def one_numpy_thread() -> Iterator[None]:
    """Limits NumPy's BLAS to one thread, but not that of MLX, another library: training uses it.

    Threads of two libraries on the same cores wait for each other.
    """
    libraries = ThreadpoolController()
    paths = [Path(entry["filepath"]) for entry in libraries.info()]
    of_numpy = [str(path) for path in paths if "numpy" in path.parent.name]
    with libraries.select(filepath=of_numpy).limit(limits=1):
        yield


class WeightAnalysis(Callback):
    """Logs `analysis/...` at every evaluation.

    The training thread copies the weights and continues; a background thread computes, one
    evaluation at a time: the next one is skipped if it comes before that is finished. The results
    of training do not change. Attention needs a pass of the model over a few validation rows, in
    the training thread.

    Args:
        metrics: all, or a list of embedding, rank, drift, updates and attention; null switches the
            callback off.
        max_rows: rows of the embedding that are analysed, sampled with a fixed seed.
        neighbours_above: cosine similarity above which two rows of the embedding are neighbours.
        attention_rows: validation rows whose attention is analysed.
        max_memory: fraction of the machine's memory; while more is used, evaluations are skipped.
    """

    def __init__(
        self,
        metrics: Literal["all"] | list[Kind] | None,
        max_rows: Size,
        neighbours_above: Fraction,
        attention_rows: Size,
        max_memory: Fraction,
    ) -> None:
        self.kinds = frozenset(get_args(Kind) if metrics == "all" else metrics or ())
        self.max_rows = max_rows
        self.neighbours_above = neighbours_above
        self.attention_rows = attention_rows
        self.max_memory = max_memory
        self._job: AnalysisJob | None = None
        self._before: Snapshot | None = None  # taken at the last evaluation that was analysed
        self._has_skipped = False

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.kinds:
            return
        before_save = state.before_save

        def save_results() -> None:
            # A resumed run repeats the analysis of the checkpoint's own step, but no earlier one.
            before_save()
            if self._job is not None and self._job.step < state.progress.step:
                self._finish(context, state)

        state.before_save = save_results
        if self._shortage():
            return
        if SECONDS in state.history.at(state.progress.step):
            self._before = self._take_snapshot(state)
        else:
            self._start(state)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if self._job is not None and not self._job.is_alive():
            self._log_result(self._job, context, state)
        if self.kinds and result.evaluation is not None:
            self._analyse(context, state)

    def on_end(self, context: FitContext, state: TrainState) -> None:
        self._finish(context, state)

    def _analyse(self, context: FitContext, state: TrainState) -> None:
        start = time.perf_counter()
        step = state.progress.step
        shortage = self._shortage()
        if shortage:
            self._skip(step, shortage)
            return
        metrics = self._attention(context, state) if "attention" in self.kinds else {}
        if self._job is None:
            self._start(state)
        else:
            self._skip(step, f"that of step {self._job.step} is not finished")
        context.log(state, metrics | {PAUSE_SECONDS: time.perf_counter() - start})

    def _start(self, state: TrainState) -> None:
        """Analyses the weights of the current step in the background."""
        if self.kinds == {"attention"}:
            return
        from mlxlab.extensions.weight_analysis.measure import measure

        snapshot = self._take_snapshot(state)
        before = self._before
        if before is not None and before.model != snapshot.model:
            before = None  # Layers of the same number need not be the same.
        if self.kinds & {"drift", "updates"}:
            self._before = snapshot
        work = partial(measure, snapshot, before, self.kinds, self.neighbours_above)
        self._job = AnalysisJob(snapshot.step, work)
        self._job.start()

    def _take_snapshot(self, state: TrainState) -> "Snapshot":
        from mlxlab.extensions.weight_analysis.snapshot import take_snapshot

        model = (state.architecture, state.progress.model_step)
        with state.eval_weights() as evaluated:
            return take_snapshot(evaluated, state.progress.step, self.max_rows, model)

    def _attention(self, context: FitContext, state: TrainState) -> dict[str, float]:
        from mlxlab.extensions.weight_analysis.attention import attention_entropy, attention_metrics

        batch = next(iter(context.valid), None)
        if batch is None:
            return {}
        rows = to_device(tree_map(lambda array: array[: self.attention_rows], batch))
        try:
            with state.eval_weights() as model:
                return attention_metrics(attention_entropy(model, rows.tokens, rows.segment_ids))
        except (RuntimeError, ValueError) as error:  # The device has no memory left.
            self._report(state.progress.step, error)
            return {}

    def _finish(self, context: FitContext, state: TrainState) -> None:
        """Waits for the result; not after a signal, which leaves little time."""
        if self._job is not None and not context.control.stop_signal:
            self._log_result(self._job, context, state)
        self._job = None

    def _log_result(self, job: AnalysisJob, context: FitContext, state: TrainState) -> None:
        job.join()
        self._job = None
        if job.error is None:
            context.log(state, job.metrics, job.step)
        else:
            self._report(job.step, job.error)

    def _shortage(self) -> str:
        """Why there is no memory for an analysis; "" if there is."""
        memory = psutil.virtual_memory()
        used = 1 - memory.available / memory.total
        if used <= self.max_memory:
            return ""
        limit = f"callbacks.analysis.max_memory={self.max_memory}"
        return f"{percent(used, 0)} of the memory are used ({limit})"

    def _skip(self, step: int, reason: str) -> None:
        if not self._has_skipped:
            logger.warning(f"analysis of step {step} skipped: {reason}")
        self._has_skipped = True

    def _report(self, step: int, error: Exception) -> None:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        logger.warning(f"analysis of step {step} failed: {reason}; training continues")
