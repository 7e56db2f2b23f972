"""The trainer, and the only training loop there is."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import mlx.core as mx
import mlx.optimizers as optim

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.constraints import Count, Positive, Share, Size
from mlxlab.data.batch import Batch, Task
from mlxlab.distributed.process_group import ProcessGroup, SingleProcess
from mlxlab.errors import ConfigError, DivergenceError
from mlxlab.training.adaptive_batch import SampleScheduledOptimizer, parse_adaptive_batch
from mlxlab.training.device_batch import to_device
from mlxlab.training.evaluate import Evaluation, evaluate
from mlxlab.training.losses.loss import Loss
from mlxlab.training.optim.ema import EMAOptimizer, use_ema_weights
from mlxlab.training.optim.schedules import LRSchedule, Schedule
from mlxlab.training.state import Run
from mlxlab.training.steps.step import Step


class Callback(Protocol):
    """Three moments. Keeps no state that a resumed run would miss, and may come in any order.

    A wish for the loop is left in the run (`run.stop`); what was decided is derived from what the run remembers.
    """

    def on_start(self, run: Run) -> None: ...

    def on_step(self, run: Run) -> None: ...

    def on_end(self, run: Run) -> None: ...


class Trainer:
    """Minimises a loss, one step after another.

    Args:
        learning_rate: the peak of the schedule.
        epochs: passes over the training data; ends the run unless max_steps or max_tokens comes first.
        max_steps: optimizer updates at most; null sets no such limit.
        max_tokens: real training tokens at most (padding does not count); null sets no such limit.
        eval_every: updates between evaluations, the last update always being one; null evaluates every epoch.
        eval_batches: validation batches per evaluation; null takes all.
        log_every: updates between log lines.
        label_smoothing: share of the target spread over all classes, in the training loss only.
        max_skips: updates in a row that may be skipped for a non-finite loss or gradient before the run rolls back.
        max_rollbacks: times that it goes back to the last good checkpoint, past the data, before it ends (exit 78).
        parallel: data shares every batch among the processes that mlx.launch started; fsdp is not built.
        ema: decay of an average of the weights, which is then what is evaluated and kept as the model; null keeps none.
        dynamic_batch: `{min: 4, max: 256, ...}` lets the size of the batch follow the memory; null leaves it alone.
        deadline: seconds that a process waits for the others before it saves and ends (exit 75).
        loss: what is minimised.
        step: how one batch becomes one update.
        optimizer: how gradients move the weights.
        schedule: how the learning rate moves.
        teachers: models to learn from, with trainer=distill; `distillation.teachers` refers to them.
        distillation: options of trainer=distill. The experiment loads the teachers and trains in rounds, not the loop.
    """

    def __init__(
        self,
        learning_rate: Positive,
        epochs: Size | None,
        max_steps: Size | None,
        max_tokens: Size | None,
        eval_every: Size | None,
        eval_batches: Size | None,
        log_every: Size,
        label_smoothing: Share,
        max_skips: Size,
        max_rollbacks: Count,
        parallel: Literal["none", "data", "fsdp"],
        deadline: Positive,
        ema: Share | None,
        dynamic_batch: dict[str, float] | None,
        loss: Loss,
        step: Callable[..., Step],
        optimizer: Callable[..., optim.Optimizer],
        schedule: Schedule,
        teachers: list[str] | None = None,
        distillation: object | None = None,
    ) -> None:
        if teachers and distillation is None:
            raise ConfigError("trainer.teachers: expected trainer=distill")
        if epochs is None and max_steps is None and max_tokens is None:
            raise ValueError(
                "trainer.epochs, trainer.max_steps and trainer.max_tokens are all null: the run has no end"
            )
        self.learning_rate = learning_rate
        self.epochs, self.max_steps, self.max_tokens = epochs, max_steps, max_tokens
        self.eval_every, self.eval_batches, self.log_every = eval_every, eval_batches, log_every
        self.max_skips, self.max_rollbacks = max_skips, max_rollbacks
        self.parallel, self.deadline = parallel, deadline
        self.ema = ema
        self.dynamic_batch = parse_adaptive_batch(dynamic_batch) if dynamic_batch is not None else None
        self.loss, self.step, self.optimizer, self.schedule = loss, step, optimizer, schedule

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
        """Trains `run.model` until the run's end. A checkpoint goes on exactly where it was taken."""
        self.loss.setup(run.model, seed)
        run.before_save = self.loss.flush
        rate = self.prepare(run)
        if resume is not None:
            run.restore(resume.weights, resume.optimizer, resume.state)
        group = self.group = group or SingleProcess()
        step = self.step(model=run.model, loss=self.loss, optimizer=run.optimizer, group=group)
        interrupted = lambda: group.highest([run.signal])[0] != 0  # noqa: E731
        look = partial(_evaluated, run, valid, task, limit=self.eval_batches, interrupted=interrupted)
        if self.dynamic_batch is not None:
            callbacks = [self.dynamic_batch.attach(run, step, group), *callbacks]
        run.place = run.train.state_dict()
        run.restart_clock()
        for callback in callbacks:
            callback.on_start(run)
        group.rescue_by(lambda: run.rescue())
        self._set_stop(run)
        self._listen(run)
        if resume is not None:
            self._catch_up(run, rate, look, callbacks)
        run.model.train()
        while not run.stop:
            try:
                for batch in run.train:
                    batch = batch._replace(extra=batch.extra | self.loss.annotate(batch, _progress(run)))
                    mx.random.seed(step_seed(seed, run.step, group.rank))
                    run.advance(batch, step(to_device(group.share(batch))))
                    self._set_stop(run)
                    if run.step % self.log_every == 0 or run.stop == "done":
                        run.log_training(float(rate(mx.array(run.position))))
                    self._finish_step(run, look, callbacks)
                    if run.stop:
                        break
            except DivergenceError:
                if not group.in_turn(lambda: run.roll_back(self.max_rollbacks)):
                    raise
        self.loss.flush()
        for callback in callbacks:
            callback.on_end(run)
        return run

    def prepare(self, run: Run) -> LRSchedule:
        """Gives the run its length and its optimizer, initialised for every weight."""
        run.total_steps = self._planned_steps(run)
        rate = self.schedule(peak=self.learning_rate, steps=run.total_steps)
        run.optimizer = (
            SampleScheduledOptimizer(self.optimizer, rate=rate) if self.dynamic_batch else self.optimizer(rate=rate)
        )
        if self.ema is not None:
            run.optimizer = EMAOptimizer(run.optimizer, self.ema)
        run.optimizer.init(run.model.trainable_parameters())
        return rate

    def _planned_steps(self, run: Run) -> int | None:
        """Updates until the first of the limits; None where no limit can be told in updates."""
        data = run.train
        lengths = [self.max_steps] if self.max_steps is not None else []
        if self.epochs is not None and data.batches_per_epoch is not None:
            lengths.append(self.epochs * data.batches_per_epoch)
        if self.max_tokens is not None and data.tokens_per_batch is not None:
            lengths.append(-(-self.max_tokens // data.tokens_per_batch))
        return min(lengths, default=None)

    def _catch_up(
        self, run: Run, rate: LRSchedule, look: Callable[[], Evaluation | None], callbacks: Sequence[Callback]
    ) -> None:
        """What was due at the step of the checkpoint, and a signal kept from being done."""
        if run.stop == "done" and run.window.steps:
            run.log_training(float(rate(mx.array(run.position))))
        if run.step and self._evaluation_due(run) and not run.evaluated:
            self._finish_step(run, look, callbacks)

    def _finish_step(self, run: Run, look: Callable[[], Evaluation | None], callbacks: Sequence[Callback]) -> None:
        if self._evaluation_due(run) and (evaluation := look()) is not None:
            run.record(evaluation)
        self._listen(run)
        for callback in callbacks:
            callback.on_step(run)

    def _evaluation_due(self, run: Run) -> bool:
        at_cadence = run.step % self.eval_every == 0 if self.eval_every else run.train.at_epoch_start
        return (run.step > 0 and at_cadence) or run.stop == "done"

    def _listen(self, run: Run) -> None:
        """What was asked of any process, all of them do, after the same step."""
        signal, save = self.group.highest([run.signal, run.save])
        run.save = bool(save) and self.group.rank == 0
        if signal and not run.stop:
            run.signal, run.stop = signal, f"signal {signal}"

    def _set_stop(self, run: Run) -> None:
        limits = (
            (self.max_steps, run.step),
            (self.epochs, run.train.epoch),
            (self.max_tokens, run.tokens),
        )
        if not run.stop and any(limit is not None and reached >= limit for limit, reached in limits):
            run.stop = "done"


def _evaluated(run: Run, *args: Any, **kwargs: Any) -> Evaluation | None:
    with use_ema_weights(run.model, run.optimizer):
        return evaluate(run.model, *args, **kwargs)


def _progress(run: Run) -> float | None:
    """Part of the run that is done, in [0, 1); None where the length of the run is unknown."""
    return run.step / run.total_steps if run.total_steps else None


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The random numbers of a step are a function of (seed, step, process): there is no random state to save."""
    mixed = seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + rank * 0xC2B2AE3D27D4EB4F
    return (mixed + 0x632BE59BD9B4E019) % 2**64
