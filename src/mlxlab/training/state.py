"""Training state: everything a checkpoint restores, and the result of the step just taken."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlxlab.backend import release_memory
from mlxlab.checkpoint.arrays import AVERAGE, TRAINED, Arrays, swap_weights
from mlxlab.checkpoint.state import (
    ChangedSettings,
    History,
    Progress,
    Resize,
    RunningTotals,
    TrainStateDict,
)
from mlxlab.checkpoint.store import Checkpoint, check_arrays
from mlxlab.data.batch import Batch, BatchIterator, set_curriculum_alpha
from mlxlab.errors import ConfigError
from mlxlab.models.build import Architecture
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.distributed.sharding import FullySharded, Replicated, Sharding
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.optim.optimizers import EMAOptimizer, assign_leaves, flatten_arrays, map_leaves

EMPTY = np.zeros((0, 0), np.int32)
NO_ROWS = Batch(EMPTY, EMPTY, EMPTY, EMPTY.astype(np.float32), np.zeros(0, np.int64))


class StepResult(NamedTuple):
    """One optimizer step. Sums are over the targets of the batch, on all ranks together."""

    loss: float
    weight: float
    grad_norm: float  # before clipping
    finite: bool  # False: loss or gradient were not, and nothing was changed
    terms: dict[str, float]  # sums of the terms of the loss, by name
    # (B,) sums over the targets of each row: "loss", "weight" and every term
    per_example: dict[str, mx.array]
    batch: Batch = NO_ROWS  # rows of all ranks; the loop adds them
    evaluation: Evaluation | None = None  # made after this step, if one was due

    @property
    def trained(self) -> bool:
        """False for the result of a resumed run that only made up for an evaluation that was due."""
        return len(self.batch.example_ids) > 0


# The result where a resumed run only makes up for an evaluation.
NO_STEP = StepResult(0.0, 0.0, 0.0, True, {}, {})


def _unknown(*arguments: object) -> Any:
    raise ConfigError("expected a state of `Trainer.init_state`, of a model that its config builds")


@dataclass
class TrainState:
    """The live state of a run. A checkpoint restores weights, optimizer and what `state_dict` returns."""

    model: nn.Module
    optimizer: optim.Optimizer
    data: BatchIterator
    total_steps: int | None = None  # planned with the configured batch size. Not saved
    progress: Progress = field(default_factory=Progress)
    history: History = field(default_factory=History)
    running: RunningTotals = field(default_factory=RunningTotals)
    # The position after the last step; `data` itself may be one batch ahead.
    data_state: dict[str, object] = field(default_factory=dict)
    # The position of `data` before the first step. Not saved
    first_position: dict[str, object] = field(default_factory=dict)
    # Makes durable what a resumed run needs besides the checkpoint.
    before_save: Callable[[], None] = lambda: None
    # The weights of the last step, while `model` has an average of them. Not saved
    replaced_weights: Arrays = field(default_factory=dict)
    architecture: Architecture = field(default_factory=lambda: Architecture({}, 0))
    new_model: Callable[[Architecture], nn.Module] = _unknown  # Not saved
    new_optimizer: Callable[[nn.Module], optim.Optimizer] = _unknown  # Not saved
    # The steps of a whole run. Not saved
    plan_steps: Callable[[BatchIterator | Resize], int | None] = lambda data: None
    # How the ranks divide weights and optimizer state. Not saved
    sharding: Sharding = field(default_factory=Replicated)
    outline: nn.Module | None = None  # `whole_model`, once it was made. Not saved

    def advance(self, batch: Batch) -> None:
        """Counts the batch of one step: all that is known before the device has computed it."""
        progress = self.progress
        running = self.running
        tokens = int(np.count_nonzero(batch.segment_ids))
        progress.step += 1
        progress.samples += int(
            np.count_nonzero(batch.example_ids >= 0)
        )  # -1 are rows that only fill up
        progress.tokens += tokens
        running.tokens += tokens
        running.token_slots += batch.segment_ids.size
        self.data_state = self.data.state_dict()

    def record(self, result: StepResult) -> None:
        """Adds the result of one step, immediately: the check for a rollback reads the counters after every step."""
        progress = self.progress
        running = self.running
        if not result.finite:
            progress.nonfinite_steps += 1
            progress.consecutive_nonfinite += 1
            return
        progress.consecutive_nonfinite = 0
        running.loss += result.loss
        running.weight += result.weight
        running.grad_norm += result.grad_norm
        running.steps += 1
        for name, value in result.terms.items():
            running.terms[name] = running.terms.get(name, 0.0) + value

    @contextmanager
    def eval_weights(self) -> Iterator[nn.Module]:
        """The model with the weights that are evaluated and saved: their moving average, if there is one."""
        before = self.model.trainable_parameters()
        self.replaced_weights = flatten_arrays(before)
        if isinstance(self.optimizer, EMAOptimizer):
            self.model.update(self.optimizer.average)
        try:
            with self.sharding.gathered(self.model):
                yield self.model
        finally:
            self.model.update(before)
            self.replaced_weights = {}

    @property
    def fraction_done(self) -> float | None:
        """Fraction of the run that is done, in [0, 1], below 1 before the last step; None if its length is unknown."""
        total = self.planned_steps
        if not total:
            return None
        return self.progress.step / total

    @property
    def planned_steps(self) -> int | None:
        """Steps of the whole run, after changes of the batch size; None if no limit can be expressed in steps."""
        planned = before = self.total_steps
        for resize in self.progress.settings.resizes:
            after = self.plan_steps(resize)
            if planned and before and after and before != after:
                planned = resize.step + math.ceil((1 - resize.step / planned) * after)
            before = after
        return planned

    def resize(self, batch_size: int) -> None:
        """Changes the batch size from the next batch on."""
        data = self.data
        before = self.data.batch_size
        data.resize(batch_size)
        if batch_size != before:
            counts = data.batches_per_epoch, data.tokens_per_batch
            self.progress.settings.resizes.append(Resize(self.progress.step, batch_size, *counts))

    def restore_settings(self, settings: ChangedSettings, configured_batch_size: int) -> None:
        """Returns to earlier settings, while the data continue: the plan counts the batches that were served since."""
        now = self.progress.settings
        if settings.batch_size != now.batch_size:
            self.resize(settings.batch_size or configured_batch_size)
        alpha = settings.curriculum_alpha
        if alpha is None:
            alpha = now.curriculum_alpha
        elif alpha != now.curriculum_alpha:
            set_curriculum_alpha(self.data, alpha)
        self.progress.settings = replace(settings, resizes=now.resizes, curriculum_alpha=alpha)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Replaces weights and optimizer by those of a checkpoint, which may be of an earlier architecture.

        Raises:
            CorruptCheckpointError: the arrays are those of another model or optimizer.
        """
        architecture = Architecture(
            checkpoint.state["architecture"], checkpoint.state["vocab_size"]
        )
        if architecture != self.architecture:
            self.replace_model(self.new_model(architecture), architecture)
        self.load_weights(checkpoint.weights, checkpoint.optimizer)

    def new_training(self, architecture: Architecture) -> tuple[nn.Module, optim.Optimizer]:
        """A model of an architecture, without weights, and its optimizer before the first step."""
        model = self.new_model(architecture)
        return model, self.new_optimizer(model)

    def replace_model(self, model: nn.Module, architecture: Architecture) -> None:
        """Trains another model from now on, with a new optimizer, whose state the caller sets."""
        optimizer = self.new_optimizer(model)
        self.model = model
        self.optimizer = optimizer
        self.architecture = architecture
        self.progress.model_step = self.progress.step

    def shard(self, group: ProcessGroup, restored: Checkpoint | None = None) -> None:
        """Splits weights and optimizer state among the processes, if their group holds them in shards.

        The arrays of the checkpoint that was restored are removed from it: it would hold all of them during the run.
        """
        if not group.shards_weights:
            return
        shapes = {
            path: leaf.shape
            for path, leaf in flatten_arrays(self.model.trainable_parameters()).items()
        }
        self.sharding = sharding = FullySharded(group, shapes)
        for tree in (self.model, self.optimizer.state):
            map_leaves(tree, lambda path, leaf: sharding.split({path: leaf})[path])
        group.working_bytes = sharding.working_bytes(self.model)
        if restored is not None:
            restored.weights.clear()
            restored.optimizer.clear()
        release_memory()

    @property
    def whole_model(self) -> nn.Module:
        """A model of the whole shapes: `model`, or another one without weights if that has shards."""
        if not self.sharding.is_sharded:
            return self.model
        self.outline = self.outline or self.new_model(self.architecture)
        return self.outline

    def load_weights(self, weights: dict[str, mx.array], optimizer: dict[str, mx.array]) -> None:
        """Replaces leaf by leaf, so that a step compiled with the old arrays sees the new ones.

        Raises:
            CorruptCheckpointError: the arrays are those of another model or optimizer.
        """
        weights, optimizer = map(
            self.sharding.split, swap_weights(weights, optimizer, TRAINED, AVERAGE)
        )
        self.model.load_weights(list(weights.items()))
        check_arrays(optimizer, flatten_arrays(self.optimizer.state), "optimizer")
        assign_leaves(self.optimizer.state, optimizer)

    def state_dict(self) -> TrainStateDict:
        """Everything but weights and optimizer; not a copy."""
        return {
            "progress": self.progress,
            "history": self.history,
            "running": self.running,
            "data": self.data.state_dict(),
            "architecture": self.architecture.node,
            "vocab_size": self.architecture.vocab_size,
        }

    def load_state_dict(self, state: TrainStateDict) -> None:
        self.progress, self.history, self.running = deepcopy(
            (state["progress"], state["history"], state["running"])
        )
        self.data.load_state_dict(state["data"])
        settings = self.progress.settings
        if settings.batch_size is not None:
            self.data.resize(settings.batch_size)
        if settings.curriculum_alpha is not None:
            set_curriculum_alpha(self.data, settings.curriculum_alpha)
