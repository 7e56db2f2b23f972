"""Analyses the weights at every evaluation in a background thread, and plots what it finds."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
from mlx.utils import tree_map

from mlxlab.constraints import Fraction, Size
from mlxlab.figures import save_figure
from mlxlab.metric_names import ANALYSIS
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.device_batch import to_device
from mlxlab.training.state import StepResult, TrainState
from mlxlab.wording import percent

if TYPE_CHECKING:
    from mlxlab.extensions.weight_analysis.snapshot import Snapshot

logger = logging.getLogger(__name__)

SECONDS, PAUSE_SECONDS = "analysis/seconds", "analysis/pause_seconds"
KINDS = ("embedding", "rank", "drift", "updates", "attention")
SIGNAL_SECONDS = 5.0
COPIES = 3  # of the snapshot, at most: this one, the one before, and work space

Metrics = dict[str, float]


def host_memory() -> tuple[float, float]:
    """Bytes of memory that are available, and of all."""
    memory = psutil.virtual_memory()
    return float(memory.available), float(memory.total)


class WeightAnalysis(Callback):
    """Logs `analysis/...` of the initial weights and of every evaluation, and plots them to `plots/analysis.png`.

    The training thread copies the weights and continues; a background thread computes, one evaluation at a time: the
    next one is skipped if it comes before that is finished. The results of training do not change. Attention needs a
    pass of the model over a few validation rows, in the training thread.

    Args:
        metrics: all, or a list of embedding, rank, drift, updates and attention; null switches the callback off.
        max_rows: rows of the embedding that are analysed, sampled with a fixed seed.
        neighbours_above: cosine similarity above which two rows of the embedding are neighbours.
        attention_rows: validation rows whose attention is analysed.
        max_memory: fraction of the machine's memory; evaluations that would exceed it are skipped.
        memory: bytes available, and of all.
    """

    def __init__(
        self,
        metrics: Literal["all"]
        | list[Literal["embedding", "rank", "drift", "updates", "attention"]]
        | None,
        max_rows: Size,
        neighbours_above: Fraction,
        attention_rows: Size,
        max_memory: Fraction,
        *,
        folder: Path,
        memory: Callable[[], tuple[float, float]] = host_memory,
    ) -> None:
        self.kinds = frozenset(KINDS if metrics == "all" else metrics or ())
        self.compares = not self.kinds.isdisjoint({"drift", "updates"})
        self.max_rows, self.neighbours_above, self.attention_rows = (
            max_rows,
            neighbours_above,
            attention_rows,
        )
        self.max_memory, self.memory = max_memory, memory
        self.snapshots, self.plots = folder / "analysis", folder / "plots"
        self._before: Snapshot | None = None  # of the last evaluation that was analysed
        self._skipped = 0

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.kinds:
            return
        from mlxlab.extensions.weight_analysis.worker import BackgroundWorker

        self._worker: BackgroundWorker[Metrics] = BackgroundWorker("analysis")
        before_save = state.before_save

        def save_results() -> None:
            # A checkpoint has the results of earlier evaluations; those of its own step can be computed from it.
            before_save()
            if self._worker.busy and self._worker.step < state.progress.step:
                self._finish(context, state)

        state.before_save = save_results
        if state.progress.step:
            self._resume(context, state)
        elif self.kinds != {"attention"} and not self._short_of_memory(state):
            self._start(state)  # what the first evaluation is compared with

    def needs_sync(self, state: TrainState) -> bool:
        return False

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if not self.kinds:
            return
        if self._worker.done:
            self._log_result(context, state)
        if result.evaluation is not None:
            self._analyse(context, state)

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if not self.kinds:
            return
        if self._worker.busy:
            self._finish(context, state)
        if self._skipped > 1:
            logger.warning(f"analysis: {self._skipped} evaluations were skipped")
        from mlxlab.extensions.weight_analysis.plot import plot_analysis

        if not context.control.stop_signal and (figure := plot_analysis(state.history)):
            save_figure(context.tracker, figure, self.plots / "analysis.png")

    def _resume(self, context: FitContext, state: TrainState) -> None:
        """Restores the last snapshot; repeats an analysis that was not finished when the run was killed."""
        from mlxlab.extensions.weight_analysis.snapshot import remove_newer

        step = state.progress.step
        remove_newer(self.snapshots, step)
        if step not in {at for at, _ in state.history.evaluations[-1:]}:
            self._before = self._load_newest(state) if self.compares else None
            return
        recorded = context.tracker.metrics_at(step)
        if SECONDS in recorded:
            state.history.add_late_metrics(
                step, {name: x for name, x in recorded.items() if name.startswith(ANALYSIS)}
            )
        if SECONDS in state.history.at(step):
            self._before = self._take_snapshot(state) if self.compares else None
        elif self.kinds != {"attention"} and not self._short_of_memory(state):
            self._before = self._load_newest(state) if self.compares else None
            self._start(state)

    def _analyse(self, context: FitContext, state: TrainState) -> None:
        step, start = state.progress.step, time.perf_counter()
        if reason := self._short_of_memory(state):
            self._skip(step, reason)
            return
        metrics = self._attention(context, state) if "attention" in self.kinds else {}
        if self._worker.busy:
            self._skip(step, f"that of step {self._worker.step} is not finished")
        elif self.kinds != {"attention"}:
            self._start(state)
        context.log(state, metrics | {PAUSE_SECONDS: time.perf_counter() - start})

    def _start(self, state: TrainState) -> None:
        from mlxlab.extensions.weight_analysis.measure import analyse

        snapshot, before = self._take_snapshot(state), self._before
        if before is not None and before.model != snapshot.model:
            before = None  # layers of the same number need not be the same
        self._before = snapshot if self.compares else None
        folder = self.snapshots if self.compares else None
        self._worker.start(
            snapshot.step,
            partial(analyse, snapshot, before, self.kinds, self.neighbours_above, folder=folder),
        )

    def _take_snapshot(self, state: TrainState) -> "Snapshot":
        from mlxlab.extensions.weight_analysis.snapshot import model_digest, take_snapshot

        digest = model_digest(state.architecture, state.progress.model_step)
        with state.eval_weights() as model:
            return take_snapshot(model, state.progress.step, self.max_rows, digest)

    def _load_newest(self, state: TrainState) -> "Snapshot | None":
        """The newest snapshot from before the current step, of the model that is trained now."""
        from mlxlab.extensions.weight_analysis.snapshot import load_newest, model_digest

        digest = model_digest(state.architecture, state.progress.model_step)
        return load_newest(self.snapshots, state.progress.step, digest)

    def _attention(self, context: FitContext, state: TrainState) -> Metrics:
        from mlxlab.extensions.weight_analysis.attention import attention_entropy
        from mlxlab.extensions.weight_analysis.measure import attention_metrics

        batch = next(iter(context.valid), None)
        if batch is None:
            return {}
        rows = to_device(tree_map(lambda array: array[: self.attention_rows], batch))
        try:
            with state.eval_weights() as model:
                return attention_metrics(attention_entropy(model, rows.tokens, rows.segment_ids))
        except (RuntimeError, ValueError) as error:  # no memory on the device
            self._report(state.progress.step, error)
            return {}

    def _finish(self, context: FitContext, state: TrainState) -> None:
        """Waits for the result; not long after a signal, because the last checkpoint is saved after this."""
        if self._worker.wait(SIGNAL_SECONDS if context.control.stop_signal else None):
            self._log_result(context, state)
        else:
            logger.warning(f"analysis of step {self._worker.step} given up: a signal ends the run")
            self._worker.abandon()

    def _log_result(self, context: FitContext, state: TrainState) -> None:
        """Waits for the background thread."""
        step, result = self._worker.step, self._worker.take()
        if isinstance(result, Exception):
            self._report(step, result)
        else:
            context.log_late(state, step, result)

    def _short_of_memory(self, state: TrainState) -> str:
        """Why there is no memory for an analysis; "" if there is."""
        from mlxlab.extensions.weight_analysis.snapshot import snapshot_bytes

        available, total = self.memory()
        used = total - available + COPIES * snapshot_bytes(state.model, self.max_rows)
        if used <= self.max_memory * total:
            return ""
        share = percent(used / total, 0)
        return (
            f"it would fill {share} of the memory (callbacks.analysis.max_memory={self.max_memory})"
        )

    def _skip(self, step: int, reason: str) -> None:
        self._skipped += 1
        if self._skipped == 1:
            logger.warning(f"analysis of step {step} skipped: {reason}")

    def _report(self, step: int, error: Exception) -> None:
        message = " ".join(str(error).split())[:200]
        logger.warning(
            f"analysis of step {step} failed: {type(error).__name__}: {message}; training continues"
        )
