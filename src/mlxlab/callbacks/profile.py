"""Measures where the time and the memory of a run go."""

import io
import logging
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlxlab.data.batch import Batch
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.schema.constraints import Size
from mlxlab.terminal.wording import percent
from mlxlab.training.callback import Callback, FitContext, Span
from mlxlab.training.device_batch import DeviceBatch, to_device
from mlxlab.training.losses.loss import Loss
from mlxlab.training.state import StepResult, TrainState
from mlxlab.training.steps.step import weighted_sum

logger = logging.getLogger(__name__)

TRACE = "profile.json"
PICTURE = "profile.png"
STEP = "step"
MICROSECONDS = 1e6


class MemorySample(NamedTuple):
    """Memory of MLX after a step in bytes; `time` is of `time.perf_counter`."""

    time: float
    active: int
    peak: int


class Profile(Callback):
    """Writes where the time of a run goes, and its memory.

    `profile.json` is a trace for https://ui.perfetto.dev, `profile.png` a picture of the same. The forward and
    the backward pass are measured once, uncompiled and in float32, on a batch of the run; the rest of a step is its
    update. Weights and data order stay what they are without it.

    Args:
        after: the step whose batch the passes are measured on, at the end of the run; null measures nothing.
    """

    def __init__(self, after: Size | None, *, folder: Path) -> None:
        self.after = after
        self.folder = folder
        self.memory: list[MemorySample] = []
        self.batch: Batch | None = None

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if self.after is not None:
            context.trace.spans = []
            mx.reset_peak_memory()

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if self.after is None:
            return
        sample = MemorySample(time.perf_counter(), mx.get_active_memory(), mx.get_peak_memory())
        self.memory.append(sample)
        if result.trained and (self.batch is None or state.progress.step <= self.after):
            self.batch = result.batch

    def on_end(self, context: FitContext, state: TrainState) -> None:
        spans = context.trace.spans or []
        context.trace.spans = None
        steps = [span.seconds for span in spans if span.name == STEP]
        if not steps:
            return
        step = median(steps)
        passes: dict[str, float] = {}
        # A signal leaves seconds, and the checkpoint is not saved yet.
        has_time = context.control.stop_reason == "done" and context.group.size == 1
        if has_time and self.batch is not None and context.loss is not None:
            passes = measure_passes(state.model, context.loss, to_device(self.batch))
        parts = {STEP: step}
        if passes:  # Compiled, a step may take less than the passes alone.
            parts = {**passes, "update": max(step - sum(passes.values()), 0.0)}
        totals = seconds_by_name(spans)
        logger.info(f"one step takes {1000 * step:.1f} ms: {_shares(parts)}")
        logger.info(f"the steps and what is between them: {_shares(totals)}")
        write_json(self.folder / TRACE, trace_events(spans, self.memory))
        write_atomic(self.folder / PICTURE, draw(parts, totals, self.memory))
        for name in (TRACE, PICTURE):
            context.tracker.log_artifact(self.folder / name)


def measure_passes(model: nn.Module, loss: Loss, batch: DeviceBatch) -> dict[str, float]:
    """Seconds of the forward and the backward pass on a batch: the median of five, after one that builds kernels."""

    def compute(batch: DeviceBatch) -> mx.array:
        total, _, _ = weighted_sum(loss, model, batch)
        return total

    gradient = nn.value_and_grad(model, compute)
    forward = _median_seconds(lambda: mx.eval(compute(batch)))
    both = _median_seconds(lambda: mx.eval(gradient(batch)))
    return {"forward": forward, "backward": max(both - forward, 0.0)}


def _median_seconds(run: Callable[[], None]) -> float:
    _, *seconds = timeit.repeat(run, number=1, repeat=6)
    return median(seconds)


def seconds_by_name(spans: list[Span]) -> dict[str, float]:
    """Seconds of all spans by name, the longest first."""
    totals: dict[str, float] = {}
    for span in spans:
        totals[span.name] = totals.get(span.name, 0.0) + span.seconds
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def _shares(seconds: dict[str, float]) -> str:
    whole = sum(seconds.values()) or 1.0
    return ", ".join(f"{name} {percent(value / whole)}" for name, value in seconds.items())


def trace_events(spans: list[Span], memory: list[MemorySample]) -> dict[str, object]:
    """The trace in the Trace Event Format of Chromium, which Perfetto reads; times are microseconds."""
    begin = min(span.start for span in spans)
    events: list[dict[str, object]] = []
    for span in spans:
        start = MICROSECONDS * (span.start - begin)
        seconds = MICROSECONDS * span.seconds
        events.append(
            {"name": span.name, "ph": "X", "ts": start, "dur": seconds, "pid": 1, "tid": 1}
        )
    for sample in memory:
        megabytes = {"active": sample.active / 1e6, "peak": sample.peak / 1e6}
        now = MICROSECONDS * (sample.time - begin)
        events.append({"name": "memory in MB", "ph": "C", "ts": now, "pid": 1, "args": megabytes})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def draw(parts: dict[str, float], totals: dict[str, float], memory: list[MemorySample]) -> bytes:
    """A PNG: bars for the parts of a step and of the run, and the memory over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="tight")
    step, run, usage = figure.subplots(1, 3)
    for axis, title, seconds in ((step, "one step", parts), (run, "the run", totals)):
        names = list(seconds)[::-1]
        axis.barh(names, [1000 * seconds[name] for name in names])
        axis.set(title=title, xlabel="ms")
    begin = memory[0].time
    times = [sample.time - begin for sample in memory]
    usage.plot(times, [sample.peak / 1e6 for sample in memory], label="peak")
    usage.plot(times, [sample.active / 1e6 for sample in memory], label="active")
    usage.set(title="memory of MLX", xlabel="seconds", ylabel="MB", ylim=(0, None))
    usage.legend(fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, dpi=120)
    return png.getvalue()
