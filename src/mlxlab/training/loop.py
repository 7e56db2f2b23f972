"""The training loop; `mlxlab.training.callback` has the order of events."""

import logging
from collections.abc import Iterable, Sequence

import mlx.core as mx

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.batch import Batch, Task
from mlxlab.errors import CheckpointUnavailableError, DivergenceError
from mlxlab.training.callback import Callback
from mlxlab.training.checkpointer import CheckpointerProtocol, NoCheckpointer
from mlxlab.training.context import FitContext
from mlxlab.training.device_batch import to_device
from mlxlab.training.evaluate import Evaluation, evaluate
from mlxlab.training.metric_logger import MetricLogger
from mlxlab.training.state import RunningTotals, StepResult, TrainState, no_step, step_result, valid_metrics
from mlxlab.training.trainer import Trainer

logger = logging.getLogger(__name__)


def fit(
    trainer: Trainer,
    context: FitContext,
    state: TrainState,
    valid: Iterable[Batch],
    task: Task,
    callbacks: Sequence[Callback] = (),
    checkpointer: CheckpointerProtocol | None = None,
    resume: Checkpoint | None = None,
    seed: int = 0,
) -> TrainState:
    """Trains until `context.control` has a reason to stop; returns the state.

    Args:
        resume: continue exactly where this checkpoint was taken.
        seed: of the random numbers of each step.

    Raises:
        DivergenceError: loss or gradients stayed non-finite, and no rollback is left.
        WorkerLostError: another process exited or does not respond.
    """
    if resume is not None:
        state.restore(resume.weights, resume.optimizer, resume.state)
    loop = TrainingLoop(trainer, context, state, valid, task, callbacks, checkpointer or NoCheckpointer())
    loop.run(seed, resumed=resume is not None)
    return state


class TrainingLoop:
    """One fit. The order of operations within a step is a law of its own: resumes are bit-exact only with it."""

    def __init__(
        self,
        trainer: Trainer,
        context: FitContext,
        state: TrainState,
        valid: Iterable[Batch],
        task: Task,
        callbacks: Sequence[Callback],
        checkpointer: CheckpointerProtocol,
    ) -> None:
        self.trainer, self.context, self.state, self.valid, self.task = trainer, context, state, valid, task
        self.control, self.group, self.checkpointer = context.control, context.group, checkpointer
        self.hooks: list[Callback | CheckpointerProtocol] = [
            *callbacks,
            checkpointer,
        ]  # the checkpointer last, so that it saves what the others did

    def run(self, seed: int, resumed: bool) -> None:
        trainer, state = self.trainer, self.state
        schedule = trainer.lr_schedule(state)
        step = trainer.step(model=state.model, loss=trainer.loss, optimizer=state.optimizer, group=self.group)
        self._start(resumed)
        state.model.train()
        while not self.control.stop_reason:
            try:
                for batch in state.data:
                    batch = batch._replace(aux=batch.aux | trainer.loss.annotate(batch, state.fraction_done))
                    state.optimizer.learning_rate = schedule(mx.array(state.progress.schedule_step))
                    mx.random.seed(step_seed(seed, state.progress.step, self.group.rank))
                    result = step_result(batch, step(to_device(self.group.shard(batch))))
                    state.record(result)
                    self._check_finite()
                    self._check_limits()
                    if state.progress.step % trainer.log_every == 0 or self.control.stop_reason == "done":
                        self.metrics.log_totals(result)
                    self._finish_step(result)
                    if self.control.stop_reason:
                        break
            except DivergenceError:
                if not self.group.rank_zero_first(self._roll_back):
                    raise
        trainer.loss.flush()
        for hook in self.hooks:
            hook.on_end(self.context, state)

    def _start(self, resumed: bool) -> None:
        state = self.state
        state.data_state = state.data.state_dict()
        self.metrics = MetricLogger(self.context, state)
        for hook in self.hooks:
            hook.on_start(self.context, state)
        self.group.on_worker_lost(lambda: self.checkpointer.save_interrupted(self.context, state))
        self._check_limits()
        self._sync_requests()
        if resumed:
            self._finish_interrupted_step()

    def _finish_interrupted_step(self) -> None:
        """Logs and evaluates if that was due at the checkpoint but prevented by the signal that ended the run."""
        if self.control.stop_reason == "done" and self.state.running.steps:
            self.metrics.log_totals(no_step())
        step = self.state.progress.step
        if step and self._evaluation_due() and not self.state.history.is_evaluated(step):
            self._finish_step(no_step())

    def _finish_step(self, result: StepResult) -> None:
        if self._evaluation_due():
            result = result._replace(evaluation=self._evaluate())
        self._sync_requests()
        for hook in self.hooks:
            hook.on_step(self.context, self.state, result)

    def _evaluate(self) -> Evaluation | None:
        """None if a signal asked to stop."""
        should_stop = lambda: self.group.all_reduce_max([self.control.stop_signal])[0] != 0  # noqa: E731
        limit = self.trainer.eval_batches
        with self.state.eval_weights() as model:
            evaluation = evaluate(model, self.valid, self.task, limit=limit, should_stop=should_stop)
        if evaluation is not None:
            self.context.log(self.state, valid_metrics(evaluation))
            self.state.history.add_evaluation(self.state.progress.step, evaluation, self.context.monitor)
        return evaluation

    def _evaluation_due(self) -> bool:
        every, step = self.trainer.eval_every, self.state.progress.step
        at_cadence = step % every == 0 if every else self.state.data.at_epoch_start
        return (step > 0 and at_cadence) or self.control.stop_reason == "done"

    def _sync_requests(self) -> None:
        """A request to any process is carried out by all of them, after the same step."""
        control = self.control
        signal, save = self.group.all_reduce_max([control.stop_signal, control.save_requested])
        control.save_requested = bool(save) and self.group.rank == 0
        if signal and not control.stop_reason:
            control.stop_signal, control.stop_reason = signal, f"signal {signal}"

    def _check_limits(self) -> None:
        trainer, progress = self.trainer, self.state.progress
        limits = (
            (trainer.max_steps, progress.step),
            (trainer.epochs, self.state.data.epoch),
            (trainer.max_tokens, progress.tokens),
        )
        if not self.control.stop_reason and any(limit is not None and value >= limit for limit, value in limits):
            self.control.stop_reason = "done"

    def _check_finite(self) -> None:
        progress = self.state.progress
        if progress.consecutive_nonfinite >= self.trainer.max_nonfinite_steps:
            raise DivergenceError(
                f"loss or gradients were not finite in {progress.consecutive_nonfinite} consecutive steps, up to step"
                f" {progress.step}; none of them changed the weights: lower trainer.learning_rate, or raise"
                " trainer.max_nonfinite_steps"
            )

    def _roll_back(self) -> bool:
        """Loads weights and optimizer of the last good checkpoint; training continues after the batches that diverged.

        False if that was done `max_rollbacks` times already, or there is no checkpoint.
        """
        state = self.state
        if state.progress.rollbacks >= self.trainer.max_rollbacks:
            return False
        try:
            checkpoint = self.checkpointer.load_last()
        except CheckpointUnavailableError:
            return False
        state.load_weights(checkpoint.weights, checkpoint.optimizer)
        state.running, state.progress.consecutive_nonfinite = RunningTotals(), 0
        state.progress.rollbacks += 1
        step = state.progress.step
        logger.warning(f"step {step}: not finite; continuing with the weights of step {checkpoint.step} and later data")
        return True


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The random numbers of a step are a function of (seed, step, rank): there is no random state to save."""
    mixed = seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + rank * 0xC2B2AE3D27D4EB4F
    return (mixed + 0x632BE59BD9B4E019) % 2**64
