"""Cost of teachers: a step that queries a teacher, or reads its cached soft targets, compared with its parts.

CPU seconds are reported next to the clock: they are less sensitive to other work on the machine.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from benchmarks.alternate import table
from benchmarks.subject import _read
from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.distillation.cache import TeacherCache
from mlxlab.distillation.loss import DistillationLoss
from mlxlab.distillation.teachers import Teachers
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.models.heads import build_head
from mlxlab.models.model import Model
from mlxlab.models.transformer import Transformer
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import CrossEntropyLoss, Loss
from mlxlab.training.optim.optimizers import adamw

STUDENT = {"hidden_size": 128, "num_layers": 6, "num_heads": 4, "intermediate_size": 512}
TEACHER = {"hidden_size": 256, "num_layers": 8, "num_heads": 8, "intermediate_size": 1024}
ROWS, LENGTH = 4, 128


def distilling(rounds: int = 9) -> str:
    """Rounds of: the student's step, the teacher's forward pass, both in one, the step with a warm cache."""
    return "\n\n".join(_of_vocabulary(V, rounds, fused) for V, fused in ((512, False), (2048, False), (2048, True)))


def _of_vocabulary(V: int, rounds: int, fused: bool) -> str:
    teacher, batch = _model(TEACHER, V, 1), _batch(V)
    ensemble = Ensemble([FrozenModel(teacher)])
    forward: Any = mx.compile(ensemble) if fused else ensemble
    with tempfile.TemporaryDirectory() as folder:
        cache = TeacherCache(100, "float16", folder=Path(folder), num_classes=V)
        works = {
            "student's step": _step(CrossEntropyLoss(0.0), batch, V, fused),
            "teacher forward": lambda: mx.eval(forward(*to_device(batch)[:2])),
            "step, teacher queried": _step(_loss(Teachers(ensemble)), batch, V, fused),
            "step, warm cache": _step(_loss(Teachers(ensemble, cache=cache)), batch, V, fused),
        }
        clock, cpu = _measure(works, rounds)
    rows: list[tuple[str, ...]] = [("", "ms", "of the sum", "of the step", "CPU ms", "of the sum", "of the step")]
    for name in works:
        row = [name]
        for seconds in (clock, cpu):
            alone = median(seconds["student's step"])
            parts = [a + b for a, b in zip(seconds["student's step"], seconds["teacher forward"], strict=True)]
            own = median(seconds[name])
            row += [f"{1e3 * own:.0f}", f"{own / median(parts):.3f}", f"{own / alone:.3f}"]
        rows.append(tuple(row))
    how = "compiled" if fused else "not compiled"
    title = f"nano student of tiny, {ROWS} x {LENGTH} tokens of {V}, top 100, {how}, medians of {rounds} rounds"
    return table(title, rows)


def _measure(works: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    clock: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            start, busy = time.perf_counter(), time.process_time()
            work()
            if number:  # the first one warms up
                clock[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - busy)
    return clock, cpu


def _step(loss: Loss, batch: Batch, V: int, fused: bool) -> Callable[[], Any]:
    """One step of a new student, with the annotations of its loss."""
    model = _model(STUDENT, V, 0)
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=1e-4)
    optimizer.init(model.trainable_parameters())
    node = _read("trainer/step/optimized") | {"compile": "always" if fused else "never"}
    update = instantiate(node, model=model, loss=loss, optimizer=optimizer)()
    return lambda: update(to_device(batch._replace(aux=loss.annotate(batch, None))))


def _loss(teachers: Teachers) -> DistillationLoss:
    return DistillationLoss(0.5, 3.0, True, "forward", 0.0, [], None, loaded_teachers=teachers)


def _model(shape: dict[str, Any], V: int, seed: int) -> nn.Module:
    mx.random.seed(seed)
    backbone = Transformer(vocab_size=V, **shape)
    model = Model(backbone, build_head(backbone, kind="language_modelling"))
    mx.eval(model.parameters())
    return model


def _batch(V: int) -> Batch:
    tokens = np.random.default_rng(0).integers(0, V, (ROWS, LENGTH + 1)).astype(np.int32)
    ones = np.ones((ROWS, LENGTH), np.int32)
    return Batch(tokens[:, :-1], ones > 0, tokens[:, 1:], ones.astype(np.float32), np.arange(ROWS))
