"""The trainer: the settings of a fit."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlxlab.checkpoint.state import ChangedSettings, Progress, Resize
from mlxlab.data.batch import Batch, BatchIterator
from mlxlab.data.dataset import AUTO_EPOCHS, RunLength, auto_epochs
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import frozen_parameters, make_contiguous
from mlxlab.schema.constraints import Count, Positive, Share, Size
from mlxlab.terminal.wording import counted
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.losses.loss import Loss, LossFunction, ShardedLoss
from mlxlab.training.optim.optimizers import EMAOptimizer, flatten_arrays
from mlxlab.training.optim.schedules import LRSchedule, Schedule
from mlxlab.training.state import TrainState
from mlxlab.training.steps.step import Step


@dataclass(frozen=True)
class Trainer:
    """Minimises a loss, one optimizer step after another.

    Args:
        learning_rate: the peak of the schedule.
        epochs: passes over the training data; ends the run unless max_steps or max_tokens comes first. auto
            is 5, of few rows or little text of your own as many as make 300 steps, at most 100.
        max_steps: maximum number of optimizer steps; null sets no such limit.
        max_tokens: maximum number of training tokens (padding does not count); null sets no such limit.
        eval_every: steps between evaluations, the last step always being evaluated; null evaluates every epoch.
        eval_batches: validation batches per evaluation; null takes all.
        test_batches: test batches at the end of the run; null takes all.
        log_every: steps between log lines.
        label_smoothing: fraction of the target spread over all classes, in the training loss only; a regression has none.
        max_nonfinite_steps: consecutive steps with a non-finite loss or gradient before the run rolls back.
        max_rollbacks: times that the run returns to the last good checkpoint, past the data, before it ends (exit 78).
        parallel: data shards every batch among the processes that mlx.launch started, fsdp also weights, gradients and
            optimizer state, and computes every layer a second time in the backward pass.
        ema_decay: decay of a moving average of the weights, which is then evaluated and saved; null for none.
        worker_timeout: seconds that a process waits for the others before it saves and ends (exit 75).
        loss: what is minimised.
        step: takes one optimizer step on a batch.
        optimizer: how gradients change the weights.
        schedule: learning rate by step.
        teachers: models to learn from, with trainer=distill; `distillation.teachers` refers to them.
        distillation: options of trainer=distill. The experiment loads the teachers and trains in rounds, not the loop.
    """

    learning_rate: Positive
    epochs: Size | Literal["auto"] | None
    max_steps: Size | None
    max_tokens: Size | None
    eval_every: Size | None
    eval_batches: Size | None
    test_batches: Size | None
    log_every: Size
    label_smoothing: Share
    max_nonfinite_steps: Size
    max_rollbacks: Count
    parallel: Literal["none", "data", "fsdp"]
    worker_timeout: Positive
    ema_decay: Share | None
    loss: Loss
    step: Callable[..., Step]
    optimizer: Callable[..., optim.Optimizer]
    schedule: Schedule
    teachers: list[str] | None = None
    distillation: object | None = None

    def init_state(self, model: nn.Module, data: BatchIterator) -> TrainState:
        """The state before the first step."""
        return TrainState(
            model,
            self.new_optimizer(model),
            data,
            self.plan_steps(data),
            first_position=data.state_dict(),
            before_save=self.loss.flush,
            new_optimizer=self.new_optimizer,
            plan_steps=self.plan_steps,
        )

    def new_optimizer(self, model: nn.Module) -> optim.Optimizer:
        """The optimizer of a model, before its first step."""
        weights = flatten_arrays(model.trainable_parameters())
        frozen = [*frozen_parameters(model)]
        optimizer = self.optimizer(
            learning_rate=self.learning_rate, parameters=weights, frozen=frozen
        )
        if self.ema_decay is not None:
            optimizer = EMAOptimizer(optimizer, self.ema_decay)
        optimizer.init(model.trainable_parameters())
        return optimizer

    def plan_steps(self, data: BatchIterator | Resize) -> int | None:
        """Steps of a run whose batches all have the current size; None if no limit can be expressed in steps."""
        return self.length.steps(data.batches_per_epoch, data.tokens_per_batch)

    @property
    def length(self) -> RunLength:
        """The limits of a run."""
        return RunLength(
            self.max_steps, AUTO_EPOCHS if self.epochs == "auto" else self.epochs, self.max_tokens
        )

    def for_data(self, data: object, batches_per_epoch: int | None) -> "Trainer":
        """The trainer with the epochs that `auto` is for a data set."""
        if self.epochs != "auto":
            return self
        return replace(self, epochs=auto_epochs(data, batches_per_epoch))

    def with_settings(self, settings: ChangedSettings) -> "Trainer":
        """The trainer with the settings that changed during the run."""
        names = ("learning_rate", "eval_every", "eval_batches")
        values = {name: getattr(settings, name) for name in names}
        changes = {name: value for name, value in values.items() if value is not None}
        if settings.accumulate is not None:
            changes["step"] = partial(self.step, accumulate=settings.accumulate)
        return replace(self, **changes)

    def reached_limits(self, progress: Progress, epoch: int) -> dict[str, int]:
        """The keys whose limits are reached, with their values."""
        limits = self.length._asdict()
        values = {"max_steps": progress.step, "epochs": epoch, "max_tokens": progress.tokens}
        return {
            key: limit
            for key, limit in limits.items()
            if limit is not None and values[key] >= limit
        }

    def evaluation_due(self, state: TrainState) -> bool:
        """Whether the step just taken is one after which the model is evaluated; the last one of the run always is."""
        every = self.eval_every
        step = state.progress.step
        return step > 0 and (step % every == 0 if every else state.data.at_epoch_start)

    def early_end(self, batches_per_epoch: int | None) -> str:
        """A line that says that `epochs` ends the run before `max_steps`; "" if it does not, or that is unknown."""
        max_steps, epochs, _ = self.length
        if max_steps is None or epochs is None or batches_per_epoch is None:
            return ""
        steps = epochs * batches_per_epoch
        if steps >= max_steps:
            return ""
        before = f"trainer.epochs={epochs} is reached before trainer.max_steps={self.max_steps}"
        return f"ends after {counted(steps, 'step')}: {before}"

    def make_step(self, state: TrainState, group: ProcessGroup | None = None) -> Step:
        make_contiguous(state.model)
        loss: LossFunction = self.loss
        if state.sharding.is_sharded:
            loss = ShardedLoss(self.loss, state.sharding)
        return self.step(model=state.model, loss=loss, optimizer=state.optimizer, group=group)

    def annotate(self, batch: Batch, fraction_done: float | None) -> Batch:
        """The batch with the arrays that the loss adds to it, at this fraction of the run."""
        return batch._replace(aux=batch.aux | self.loss.annotate(batch, fraction_done))

    def lr_schedule(self, state: TrainState) -> LRSchedule:
        """The learning rate by step; it restarts at `schedule_start` of the settings, and may rise a second time."""
        settings = state.progress.settings
        planned = state.planned_steps
        start = settings.schedule_start
        try:
            schedule = self.schedule(
                peak=self.learning_rate, steps=planned and max(planned - start, 1)
            )
        except ConfigError:  # an operation left fewer steps than the warm-up has: the run ends before the schedule does
            if not start and not settings.resizes:
                raise
            schedule = self.schedule(peak=self.learning_rate, steps=state.total_steps)
        first = settings.warmup_start
        if first is None and not start:
            return schedule

        def shifted(step: mx.array) -> mx.array:
            rate = schedule(step - start)
            if first is not None:
                rate = rate * mx.clip((step - first + 1) / max(settings.warmup_steps, 1), 0, 1)
            return rate

        return shifted
