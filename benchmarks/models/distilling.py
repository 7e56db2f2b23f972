"""Cost of a teacher: a step with a queried teacher or cached soft targets, compared with its components.

CPU seconds are reported next to wall time: they are less sensitive to other load on the machine.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.alternate import table
from benchmarks.config import read_config
from benchmarks.subject import language_model
from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch, Task
from mlxlab.distillation.loss import DistillationLoss
from mlxlab.distillation.teacher_cache import TeacherCache
from mlxlab.distillation.teachers import Teachers
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import CrossEntropyLoss, Loss
from mlxlab.training.optim.optimizers import adamw

STUDENT, TEACHER = "nano", "tiny"
ROWS, LENGTH = 4, 128
LANGUAGE = Task("language_modelling", num_classes=0)


def distilling(rounds: int = 9) -> str:
    """The student's step, the teacher's forward pass, a step with both, and a step with a warm cache."""
    return "\n\n".join(
        _table(V, rounds, compiled) for V, compiled in ((512, False), (2048, False), (2048, True))
    )


def _table(V: int, rounds: int, compiled: bool) -> str:
    teacher, batch = language_model("transformer", TEACHER, V, seed=1), _batch(V)
    ensemble = Ensemble([FrozenModel(teacher)])
    forward: Any = mx.compile(ensemble) if compiled else ensemble
    with tempfile.TemporaryDirectory() as folder:
        cache = TeacherCache(100, "float16", folder=Path(folder), num_classes=V)
        variants = {
            "student's step": _step(CrossEntropyLoss(0.0), batch, V, compiled),
            "teacher forward": lambda: mx.eval(forward(*to_device(batch)[:2])),
            "step, teacher queried": _step(_loss(Teachers(ensemble)), batch, V, compiled),
            "step, warm cache": _step(_loss(Teachers(ensemble, cache=cache)), batch, V, compiled),
        }
        clock, cpu = _measure(variants, rounds)
    rows: list[tuple[str, ...]] = [
        ("variant", "ms", "/ (step + forward)", "/ step", "CPU ms", "/ (step + forward)", "/ step")
    ]
    for name in variants:
        row = [name]
        for seconds in (clock, cpu):
            step = median(seconds["student's step"])
            sums = [
                a + b
                for a, b in zip(seconds["student's step"], seconds["teacher forward"], strict=True)
            ]
            value = median(seconds[name])
            row += [f"{1e3 * value:.0f}", f"{value / median(sums):.3f}", f"{value / step:.3f}"]
        rows.append(tuple(row))
    mode = "compiled" if compiled else "not compiled"
    title = f"{STUDENT} student, {TEACHER} teacher, {ROWS} x {LENGTH} tokens, V = {V}, top 100, {mode}, {rounds} rounds"
    return table(title, rows)


def _measure(
    variants: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    clock: dict[str, list[float]] = {name: [] for name in variants}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, function in variants.items():
            start, busy = time.perf_counter(), time.process_time()
            function()
            if number:  # round 0 warms up
                clock[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - busy)
    return clock, cpu


def _step(loss: Loss, batch: Batch, V: int, compiled: bool) -> Callable[[], Any]:
    """One step of a new student, including the annotations of its loss."""
    model = language_model("transformer", STUDENT, V)
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=1e-4)
    optimizer.init(model.trainable_parameters())
    node = read_config("trainer/step/optimized") | {"compile": "always" if compiled else "never"}
    take_step = instantiate(node, model=model, loss=loss, optimizer=optimizer)()
    return lambda: take_step(to_device(batch._replace(aux=loss.annotate(batch, None))))


def _loss(teachers: Teachers) -> DistillationLoss:
    return DistillationLoss(
        0.5, 3.0, True, "forward", 0.0, None, loaded_teachers=teachers, task=LANGUAGE
    )


def _batch(V: int) -> Batch:
    tokens = np.random.default_rng(0).integers(0, V, (ROWS, LENGTH + 1)).astype(np.int32)
    ones = np.ones((ROWS, LENGTH), np.int32)
    return Batch(tokens[:, :-1], ones > 0, tokens[:, 1:], ones.astype(np.float32), np.arange(ROWS))
