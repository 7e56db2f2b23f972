"""Reports progress: a bar on a terminal, lines in a log."""

import logging
import os
import sys
import time
from contextlib import suppress
from typing import Any, Literal

from tqdm import tqdm

from mlxlab import terminal
from mlxlab.schema.metric_names import LOSS, TOKENS_PER_SEC, VALID, VALID_LOSS
from mlxlab.terminal.messages import FIRST_SECONDS, LINE_SECONDS, duration
from mlxlab.terminal.program import in_notebook
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.metrics.labelled import MAIN_METRIC
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

_MAIN_METRICS = [f"{VALID}{name}" for name in MAIN_METRIC.values()]


class ProgressBar(Callback):
    """Writes to standard error, so that standard output holds results only.

    Lines come after 3 seconds, then every half minute, and for every evaluation. If the first is of the first step,
    which compiles, the next is of the second: from there on they estimate the time that is left.

    Args:
        bar: auto draws a bar on a terminal and in a notebook, and writes lines elsewhere; always and never choose; off
            writes nothing.
    """

    def __init__(self, bar: Literal["auto", "always", "never", "off"]) -> None:
        self.mode = bar
        self.draws = bar == "always" or (bar == "auto" and (sys.stderr.isatty() or in_notebook()))
        self._bar: tqdm | None = None

    def on_start(self, context: FitContext, state: TrainState) -> None:
        step = state.progress.step
        if self.draws:
            total = state.planned_steps
            self._bar = _bar_class()(total=total, initial=step, unit="step", leave=True, **_width())
        self._start = time.monotonic()
        self._next_line = FIRST_SECONDS
        self._first_step = step
        self._first_seconds = 0.0

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if self._bar is not None:
            self._bar.update(state.progress.step - self._bar.n)
            self._bar.set_postfix_str(summary(context, state), refresh=False)
        elif self.mode != "off":
            seconds = time.monotonic() - self._start
            is_first = state.progress.step == self._first_step + 1
            if result.evaluation is not None or seconds >= self._next_line:
                self._next_line = seconds
                if not (is_first and state.planned_steps):
                    self._next_line += LINE_SECONDS
                logger.info(self._line(context, state, seconds))
            if is_first:
                self._first_seconds = seconds

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self._bar is not None:
            self._bar.close()

    def _line(self, context: FitContext, state: TrainState, seconds: float) -> str:
        """A line after so many seconds. The first step compiles: the time that is left follows from the others."""
        step = state.progress.step
        total = state.planned_steps
        planned = ""
        if total:
            planned = f"/{total}"
            if step > total:  # The plan was an estimate.
                planned = f"/~{step}"
        rate = state.history.latest(TOKENS_PER_SEC)  # 0: no step was taken
        speed = ""
        if rate:
            speed = f"{rate:,.0f} tokens/s"
        timed = step - self._first_step - 1
        left = (total or 0) - step
        eta = ""
        if timed > 0 and left > 0:
            eta = f"ETA {duration(left * (seconds - self._first_seconds) / timed)}"
        parts = [f"step {step}{planned}", summary(context, state), speed, eta]
        return "  ".join(filter(None, parts))


def _width() -> dict[str, Any]:
    """The width of the terminal, also when it changes; the default if the terminal does not say it."""
    with suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns == 0:  # tqdm would draw nothing
            return {"ncols": terminal.columns(sys.stderr)}
    return {"dynamic_ncols": True}


def _bar_class() -> type[tqdm]:
    if not in_notebook():
        return tqdm
    from tqdm.auto import (
        tqdm as notebook_bar,
    )  # slow to import; a widget if ipywidgets is installed

    return notebook_bar


def summary(context: FitContext, state: TrainState) -> str:
    """The latest losses, monitored metric and main metric of the task; with the step of those of an earlier one."""
    main = next(
        (name for name in _MAIN_METRICS if state.history.latest_point(name) is not None), VALID_LOSS
    )
    names = dict.fromkeys([LOSS, VALID_LOSS, context.monitor, main])
    texts = []
    for name in names:
        point = state.history.latest_point(name)
        if point is None:
            continue
        step, value = point
        text = f"{name} {value:.4f}"
        if step < state.progress.step:
            text += f" (step {step})"
        texts.append(text)
    return "  ".join(texts)
