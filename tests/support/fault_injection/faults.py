"""What is done to a run from inside its process, before it starts: the product has no hooks for this.

A plan is a dict: `syncer` false starts none; `kill` {save, call} ends the process at a call to the disk in a save;
`grow` {place, step, call} ends it in a step of a growth schedule: before or after the operations, inside one, after the
evaluation, or at a call to the disk in the save;
`fail` {name, errno, first, last} makes calls of one name fail in some saves; `jump` shifts the clock at every look;
`poison` {what, first, last} makes numbers non-finite in some steps; `slow` seconds before each batch of an evaluation;
`stop` a step in which SIGTERM comes.
The file `phase` says what the process is doing: a byte for each of PHASES, how deep it is in it (a save may go on
beside the training), and a byte for each, how often it has entered it.
"""

import functools
import mmap
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The last one wins.
PHASES = ("start", "data", "training", "report", "end", "evaluation", "tracking", "save")
PHASES += ("retention",)
CALLS = ("fsync", "rename", "replace", "open", "write", "mkdir", "unlink", "rmdir")


def install(plan: dict[str, Any], phase: Path) -> None:
    """Wraps functions of mlxlab in this process."""
    with phase.open("r+b") as file:
        mark_phases(mmap.mmap(file.fileno(), 2 * len(PHASES)))
    if not plan.get("syncer", True):
        from mlxlab.tracking import queue

        queue.start_uploading = lambda _queue: False
    faults = {"kill": kill_in_a_save, "grow": kill_in_growth, "fail": fail_in_saves}
    faults |= {"jump": jump_clock, "poison": poison, "stop": stop_in_step, "slow": slow_evaluation}
    for name, act in faults.items():
        if name in plan:
            act(plan[name])


def mark_phases(marks: mmap.mmap) -> None:
    from mlxlab.checkpoint.store import CheckpointStore
    from mlxlab.run import train
    from mlxlab.run.signals import SignalHandler
    from mlxlab.tracking.journal import Journal
    from mlxlab.training import loop

    def during(owner: Any, name: str, phase: str) -> None:
        original, index = getattr(owner, name), PHASES.index(phase)

        @functools.wraps(original)
        def marked(*args: Any, **kwargs: Any) -> Any:
            marks[index] += 1
            marks[len(PHASES) + index] = min(255, marks[len(PHASES) + index] + 1)
            try:
                return original(*args, **kwargs)
            finally:
                marks[index] -= 1

        setattr(owner, name, marked)

    during(train, "train", "data")
    during(loop.TrainingLoop, "run", "training")
    during(loop, "evaluate", "evaluation")
    during(CheckpointStore, "save", "save")
    during(CheckpointStore, "retain", "retention")
    during(Journal, "log_metrics", "tracking")
    during(Journal, "truncate_after", "tracking")
    during(train, "report_run", "report")
    during(SignalHandler, "stop", "end")


class Saves:
    """Counts the saves of this process, and the calls to the disk in each."""

    def __init__(self, on_call: Callable[[str, int, int], None]) -> None:
        from mlxlab.checkpoint.store import CheckpointStore

        self.number, self.step, self.calls, self.thread = 0, 0, 0, 0
        original = CheckpointStore.save

        def save(store: CheckpointStore, step: int, *args: Any, **kwargs: Any) -> Any:
            self.number += 1
            self.step, self.calls, self.thread = step, 0, threading.get_ident()
            try:
                return original(store, step, *args, **kwargs)
            finally:
                self.thread = 0

        CheckpointStore.save = save  # type: ignore[method-assign]
        for name in CALLS:
            self._watch(name, on_call)

    def _watch(self, name: str, on_call: Callable[[str, int, int], None]) -> None:
        original = getattr(os, name)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self.thread == threading.get_ident():
                self.calls += 1
                on_call(name, self.number, self.calls)
            return original(*args, **kwargs)

        setattr(os, name, watched)


def kill_in_a_save(plan: dict[str, int]) -> None:
    def on_call(_name: str, save: int, call: int) -> None:
        if (save, call) == (plan["save"], plan["call"]):
            os.kill(os.getpid(), signal.SIGKILL)

    Saves(on_call)


def kill_in_growth(plan: dict[str, Any]) -> None:
    from mlxlab.extensions.growth.callback import GrowthSchedule
    from mlxlab.training.callback import FitContext
    from mlxlab.training.loop import TrainingLoop

    place, step = plan["place"], plan["step"]

    def kill(state: Any) -> None:
        if state.progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step(*args: Any) -> None:
        if place == "before":
            kill(args[2])
        original_on_step(*args)
        if place == "after":
            kill(args[2])

    def log(context: FitContext, state: Any, metrics: dict[str, float]) -> None:
        original_log(context, state, metrics)
        if place == "inside" and "growth/done" in metrics:
            kill(state)

    def evaluate(loop: TrainingLoop) -> Any:
        result = original_evaluate(loop)
        if place == "evaluation":
            kill(loop.state)
        return result

    def on_call(_name: str, _save: int, call: int) -> None:
        if place == "save" and (saves.step, call) == (step, plan["call"]):
            os.kill(os.getpid(), signal.SIGKILL)

    saves = Saves(on_call)
    original_on_step, original_log = GrowthSchedule.on_step, FitContext.log
    original_evaluate = TrainingLoop._evaluate
    GrowthSchedule.on_step, FitContext.log, TrainingLoop._evaluate = on_step, log, evaluate  # type: ignore[assignment]


def fail_in_saves(plan: dict[str, Any]) -> None:
    def on_call(name: str, save: int, _call: int) -> None:
        if name == plan["name"] and plan["first"] <= save <= plan["last"]:
            raise OSError(plan["errno"], os.strerror(plan["errno"]))

    Saves(on_call)


def jump_clock(seed: int) -> None:
    """Every look at the clock of the day is up to a day off, forwards or backwards."""
    rng = random.Random(seed)
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + rng.uniform(-86400, 86400)
    time.time_ns = lambda: now_ns() + rng.randrange(-86400 * 10**9, 86400 * 10**9)


def poison(plan: dict[str, Any]) -> None:
    """Non-finite numbers in the updates `first` to `last` of this process."""
    import mlx.core as mx
    from mlx.utils import tree_map

    from mlxlab.training import loop as training_loop
    from mlxlab.training.steps import step as steps

    what, count = plan["what"], [0]

    def due() -> bool:
        return bool(plan["first"] <= count[0] <= plan["last"])

    to_device = training_loop.to_device

    def data(batch: Any) -> Any:
        count[0] += 1
        put = to_device(batch)
        if not due() or what != "data":
            return put
        return put._replace(loss_weights=put.loss_weights * mx.array(float("nan")))

    training_loop.to_device = data
    sum_, norm = steps.weighted_sum, steps.global_norm
    update, fused = steps.apply_if_finite, steps.apply_adamw

    def loss(*args: Any) -> Any:
        total, *terms = sum_(*args)
        return (total * float("inf") if due() and what == "loss" else total), *terms

    def gradient(tree: Any) -> Any:
        if due() and what == "gradient":
            tree = tree_map(lambda g: g * float("nan"), tree)
        return norm(tree)

    def spoil(model: Any) -> None:
        if due() and what == "optimizer":
            model.update(tree_map(lambda w: w * float("nan"), model.trainable_parameters()))

    def optimizer(condition: Any, model: Any, *rest: Any) -> None:
        update(condition, model, *rest)
        spoil(model)

    def native_optimizer(model: Any, *rest: Any) -> Any:
        if applied := fused(model, *rest):
            spoil(model)
        return applied

    steps.weighted_sum, steps.global_norm = loss, gradient
    steps.apply_if_finite, steps.apply_adamw = optimizer, native_optimizer


def slow_evaluation(seconds: float) -> None:
    from mlxlab.training import evaluate

    to_device = evaluate.to_device

    def slow(batch: Any) -> Any:
        time.sleep(seconds)
        return to_device(batch)

    evaluate.to_device = slow


def stop_in_step(step: int) -> None:
    """SIGTERM in the midst of this update and of no other; 0 is before the first."""
    from mlxlab.training.loop import TrainingLoop
    from mlxlab.training.state import TrainState

    loops: list[TrainingLoop] = []
    start, record = TrainingLoop._start, TrainState.record

    def stop() -> None:
        if loops[0].state.progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
            while not loops[0].control.stop_signal:
                time.sleep(0.001)

    def before(self: TrainingLoop, resumed: bool) -> None:
        loops.append(self)
        stop()
        start(self, resumed)

    def during(self: TrainState, result: Any) -> None:
        record(self, result)
        stop()

    TrainingLoop._start, TrainState.record = before, during  # type: ignore[method-assign]
