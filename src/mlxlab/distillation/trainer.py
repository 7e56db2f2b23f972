"""The trainer with teachers: a plain trainer, what its loss wants beside each batch, and a watch on the teachers."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import mlx.nn as nn
import numpy as np

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.constraints import Count, KeysOf, Positive
from mlxlab.data.batch import Batch, BatchIterator, Task
from mlxlab.distillation.teachers import Teachers
from mlxlab.distributed.process_group import ProcessGroup
from mlxlab.models.model import count_parameters
from mlxlab.training.evaluate import evaluate
from mlxlab.training.optim.ema import use_ema_weights
from mlxlab.training.state import Run
from mlxlab.training.trainer import Callback, Trainer


class Distillation:
    """Trains a student. All other keys are those of the plain trainer.

    Args:
        teachers: whom to learn from: run folders, checkpoints, ensembles, models of the store (`models:/<name>/1`),
            folders or hub ids of pretrained models; without any the targets alone are learned.
        teacher_weights: one per teacher; null weighs all alike.
        combine: the teachers' answers are averaged as logits or as probabilities.
        teacher_dtype: in which the teachers compute.
        vocabulary: same wants teachers with the student's classes or tokens; subset maps them by name where a teacher
            knows all of them, and more.
        teacher_cache: `{top_k: 100, dtype: float16}` keeps what the teachers say on disk; null asks them every time.
        rounds: students trained one after the other; each joins the ensemble.
        round_init: fresh draws each student anew, previous starts from the weights of the one before.
        role: what earlier students are to the next one: teacher, residual (it learns what they lack), or independent.
        members: earlier students: run folders. `rounds` fills it in by itself.
    """

    def __init__(
        self,
        teachers: list[str],
        teacher_weights: list[Positive] | None,
        combine: Literal["logits", "probabilities"],
        teacher_dtype: Literal["float32", "bfloat16", "float16"],
        vocabulary: Literal["same", "subset"],
        teacher_cache: dict[str, int | str] | None,
        rounds: Count,
        round_init: Literal["fresh", "previous"],
        role: Literal["teacher", "residual", "independent"],
        members: list[str],
        *,
        taught_by: Teachers,
        **trainer: Annotated[Any, KeysOf("mlxlab.training.trainer.Trainer")],
    ) -> None:
        self.trainer = Trainer(**trainer)
        self.taught_by = taught_by

    def fit(
        self,
        run: Run,
        valid: Iterable[Batch],
        task: Task,
        callbacks: Sequence[Callback] = (),
        resume: Checkpoint | None = None,
        seed: int = 0,
        group: ProcessGroup | None = None,
    ) -> Run:
        """As `Trainer.fit`; the teachers are the same before and after."""
        before = self.taught_by.hash()
        loss: Any = self.trainer.loss
        if hasattr(loss, "attach"):
            loss.attach(run.model, seed)
        if hasattr(loss, "prepare"):
            prepared: Any = Prepared(run.train, lambda batch: loss.prepare(batch, _progress(run)), self._keep)
            run.train = prepared
        self.trainer.fit(run, valid, task, callbacks, resume, seed, group)
        if self.taught_by and run.stop == "done":
            asked = {"student": run.model, "teacher": self.taught_by.ensemble}
            batches = list(islice(valid, self.trainer.eval_batches))
            with use_ema_weights(run.model, run.optimizer):
                found = {name: measured(model, batches, task, run) for name, model in asked.items()}
            run.beside = found if all(found.values()) else {}
        self._say(before)
        return run

    def _say(self, before: str) -> None:
        """That the teachers are what they were, and what keeping their answers cost."""
        taught_by = self.taught_by
        if not taught_by and not taught_by.beneath:
            return
        assert taught_by.hash() == before, "the teachers changed while the student learned"
        print(f"teachers unchanged: {before[:16]}", file=sys.stderr)
        if taught_by.cache is not None:
            print(taught_by.cache.describe(), file=sys.stderr)

    def _keep(self) -> None:
        if self.taught_by.cache is not None:
            self.taught_by.cache.flush()


def measured(model: nn.Module, batches: Sequence[Batch], task: Task, run: Run) -> dict[str, float]:
    """The metrics of a model, its parameters, and the milliseconds it takes for a batch; empty after a signal."""
    evaluate(model, batches, task, limit=1)  # what is compiled at first does not count
    start = time.perf_counter()
    found = evaluate(model, batches, task, interrupted=lambda: run.signal != 0)
    if found is None:
        return {}
    each = 1000 * (time.perf_counter() - start) / max(len(batches), 1)
    return {**found.metrics, "parameters": float(count_parameters(model)), "ms per batch": each}


class Prepared:
    """Batches with what a loss wants beside them; in all else the batches of the source.

    Args:
        keep: called by the run before it saves the place in the batches.
    """

    def __init__(
        self, source: BatchIterator, prepare: Callable[[Batch], dict[str, np.ndarray]], keep: Callable[[], None]
    ) -> None:
        self.source, self.prepare, self.keep = source, prepare, keep

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.source:
            yield batch._replace(extra=batch.extra | self.prepare(batch))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


def _progress(run: Run) -> float | None:
    return run.step / run.total_steps if run.total_steps else None
