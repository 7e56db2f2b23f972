"""The training loop; docs/explanation/architecture.md has the order of events."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn

from mlxlab.checkpoint.state import RunningTotals
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.batch import Batch, Task
from mlxlab.errors import CheckpointUnavailableError, DivergenceError
from mlxlab.schema import metric_names as names
from mlxlab.terminal.messages import activity
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer
from mlxlab.training.device_batch import to_device
from mlxlab.training.evaluate import Evaluation, evaluate
from mlxlab.training.state import NO_STEP, StepResult, TrainState
from mlxlab.training.steps.step import StepInterrupted
from mlxlab.training.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass
class TrainingLoop:
    """One fit. Do not reorder the operations of a step: a resume is bit-exact only with this order."""

    trainer: Trainer
    context: FitContext
    state: TrainState
    valid: Iterable[Batch]
    task: Task
    callbacks: Sequence[Callback] = ()
    checkpointer: Checkpointer | NoCheckpointer = field(default_factory=NoCheckpointer)
    seed: int = 0  # determines the random numbers of each step

    def __post_init__(self) -> None:
        self.control = self.context.control
        # The checkpointer comes last: it saves what the others did.
        self.hooks = [*self.callbacks, self.checkpointer]
        # Metrics of an evaluation that another one of the same step may replace.
        self.untracked: dict[str, float] = {}
        self.configured = self.trainer
        self.configured_batch_size = self.state.data.batch_size
        self.resumed: Checkpoint | None = None
        self.step_model: nn.Module | None = None  # the model that `self.step` trains
        self.step_settings: tuple[int | None, ...] = ()

    def run(self, resume: Checkpoint | None = None) -> None:
        """Trains until `context.control` has a reason to stop; continues exactly where `resume` was taken.

        Raises:
            DivergenceError: loss or gradients stayed non-finite, and no rollback is left.
            WorkerLostError: another process exited or does not respond.
        """
        state = self.state
        trace = self.context.trace
        self.resumed = resume
        if resume is not None:
            state.restore(resume)
            state.load_state_dict(resume.state)
        self.first_step = state.progress.step
        state.shard(self.context.group, resume)
        self._build_step()
        self._start(resumed=resume is not None)
        state.model.train()
        while not self.control.stop_reason:
            try:
                for batch in trace.waiting(state.data):
                    batch = self.trainer.annotate(batch, state.fraction_done)
                    with self._around_step(), trace.part("step"):
                        result = self._take_step(batch)
                    state.advance(batch)
                    self._end_step(result)
                    if self.control.stop_reason:
                        break
            except StepInterrupted:
                self._sync_requests()
            except DivergenceError:
                if not self.context.group.rank_zero_first(self._roll_back):
                    raise
        state.before_save()  # flushes the loss
        for hook in self.hooks:
            hook.on_end(self.context, state)

    @contextmanager
    def _around_step(self) -> Iterator[None]:
        """If the step is interrupted, its batch counts as not used, so that a resumed run begins with it.

        Says so if the first step of this process is slow.
        """
        state = self.state
        step = state.progress.step
        learning_rate = state.optimizer.learning_rate
        is_first = step == self.first_step
        try:
            with activity(f"step {step + 1}") if is_first else nullcontext():
                yield
        except StepInterrupted:
            state.optimizer.learning_rate = learning_rate
            state.data.load_state_dict(state.data_state)
            raise

    def _take_step(self, batch: Batch) -> StepResult:
        state = self.state
        group = self.context.group
        state.optimizer.learning_rate = self.schedule(mx.array(state.progress.schedule_step))
        mx.random.seed(step_seed(self.seed, state.progress.step, group.rank))
        device_batch = to_device(group.shard(batch))
        with group.computing():
            return self.step(device_batch)._replace(batch=batch)

    def _end_step(self, result: StepResult) -> None:
        """Does what is due after a step; raises DivergenceError after too many that were not finite."""
        self.state.record(result)
        progress = self.state.progress
        if progress.consecutive_nonfinite >= self.trainer.max_nonfinite_steps:
            raise DivergenceError(
                f"loss or gradients were not finite in {progress.consecutive_nonfinite} consecutive steps, up to step"
                f" {progress.step}; none of them changed the weights: lower trainer.learning_rate, or raise"
                " trainer.max_nonfinite_steps"
            )
        self._check_limits()
        is_due = progress.step % self.trainer.log_every == 0
        if is_due or self.control.stop_reason == "done":
            log_totals(self.context, self.state, result, self.callbacks)
        self._finish_step(result)

    def _build_step(self) -> None:
        """Makes schedule and step for the model, the optimizer and the settings of the state.

        A new step has to be compiled again: it is made only if the model, the batches or the micro-batches changed. The
        learning rate is an input of it.
        """
        state = self.state
        settings = self.state.progress.settings
        self.trainer = self.configured.with_settings(settings)
        self.schedule = self.trainer.lr_schedule(state)
        step_settings = (settings.accumulate, settings.batch_size)
        if self.step_model is not state.model or self.step_settings != step_settings:
            self.step = self.trainer.make_step(state, self.context.group)
            self.step_model = state.model
            self.step_settings = step_settings
            interrupt_when = getattr(self.step, "interrupt_when", None)
            # No other process waits for this one in the middle of a step.
            if interrupt_when is not None and self.context.group.size == 1:
                interrupt_when(lambda: self.control.stop_signal != 0)
        state.model.train()
        self.control.rebuild = False

    def _start(self, resumed: bool) -> None:
        state = self.state
        group = self.context.group
        state.data_state = state.data.state_dict()
        self.context.timer.restart(state.progress)
        result = NO_STEP
        for hook in self.hooks:
            hook.on_start(self.context, state)
            result = self._act_on_requests(result)
        if not resumed:
            self._track_evaluation()
        group.on_worker_lost(lambda: self.checkpointer.save_interrupted(self.context, state))
        self._check_limits()
        self._sync_requests()
        if resumed:  # makes up for what was due at the checkpoint, where a signal or a lost process ended the run
            step = state.progress.step
            evaluated_at = [step for step, _ in state.history.evaluations[-1:]]
            if self.control.stop_reason == "done" and state.running.steps:
                log_totals(self.context, state, NO_STEP)
            is_missing = step > 0 and self._evaluation_due() and step not in evaluated_at
            if is_missing or result.evaluation is not None or state.progress.callbacks_pending:
                self._finish_step(result)

    def _finish_step(self, result: StepResult) -> None:
        trace = self.context.trace
        self.state.progress.callbacks_pending = True
        if self._evaluation_due() and result.evaluation is None:
            result = result._replace(evaluation=self._evaluate())
        self._sync_requests()
        for callback in self.callbacks:
            with trace.part(type(callback).__name__):
                callback.on_step(self.context, self.state, result)
            result = self._act_on_requests(result)
        self._track_evaluation()  # before the save: after a resume it would be missing
        self.state.progress.callbacks_pending = False
        with trace.part("checkpoint"):
            self.checkpointer.on_step(self.context, self.state, result)

    def _act_on_requests(self, result: StepResult) -> StepResult:
        """Does what a callback asked for, before the next one is called: it may have replaced the model."""
        if self.control.rebuild:
            self._build_step()
        if self.control.evaluation_requested:
            self.control.evaluation_requested = False
            self.untracked = {}
            result = result._replace(evaluation=self._evaluate())
        return result

    def _evaluation_due(self) -> bool:
        return self.trainer.evaluation_due(self.state) or self.control.stop_reason == "done"

    def _evaluate(self) -> Evaluation | None:
        """None if a signal asked to stop."""
        with (
            self.context.trace.part("evaluation"),
            self.context.group.computing(),
            self.state.eval_weights() as model,
        ):
            limit = self.trainer.eval_batches
            evaluation = evaluate(
                model, self.valid, self.task, limit=limit, should_stop=self.context.should_stop
            )
        if evaluation is not None:
            metrics = {f"{names.VALID}{name}": value for name, value in evaluation.metrics.items()}
            self.untracked = metrics
            history = self.state.history
            step = self.state.progress.step
            history.add_metrics(step, metrics)
            history.add_evaluation(step, metrics, self.context.monitor)
        return evaluation

    def _track_evaluation(self) -> None:
        """Sends the last evaluation of a step to the tracker, which cannot replace what it has."""
        metrics = self.untracked
        self.untracked = {}
        if metrics:
            self.context.tracker.log_metrics(self.state.progress.step, metrics)

    def _sync_requests(self) -> None:
        """A stop signal to any process stops all after the same step; a request to save reaches rank 0."""
        control = self.control
        group = self.context.group
        signal, save = group.all_reduce_max([control.stop_signal, control.save_requested])
        control.save_requested = bool(save) and group.rank == 0
        if signal and not control.stop_reason:
            control.stop_signal = signal
            control.stop_reason = f"signal {signal}"

    def _check_limits(self) -> None:
        if (
            self.trainer.reached_limits(self.state.progress, self.state.data.epoch)
            and not self.control.stop_reason
        ):
            self.control.stop_reason = "done"

    def _roll_back(self) -> bool:
        """Loads the weights of the last good checkpoint, to continue with later data; False if no rollback is left."""
        state = self.state
        if state.progress.rollbacks >= self.trainer.max_rollbacks:
            return False
        try:
            checkpoint = self.checkpointer.load_last()
        except CheckpointUnavailableError:
            return False
        model = state.model
        settings = state.progress.settings
        state.restore(checkpoint)
        # Operations since then are made again.
        state.progress.growth = checkpoint.state["progress"].growth
        # The settings of a resume lack what its overrides replaced.
        source = checkpoint
        if self.resumed is not None and checkpoint.step <= self.resumed.step:
            source = self.resumed
        state.restore_settings(source.state["progress"].settings, self.configured_batch_size)
        if state.model is not model or state.progress.settings != settings:
            self._build_step()
        state.running = RunningTotals()
        state.progress.consecutive_nonfinite = 0
        state.progress.rollbacks += 1
        step = state.progress.step
        logger.warning(
            f"step {step}: not finite; continuing with the weights of step {checkpoint.step} and later data"
        )
        return True


def log_totals(
    context: FitContext, state: TrainState, result: StepResult, callbacks: Iterable[Callback] = ()
) -> None:
    """Logs means over the steps since the last log line, and what callbacks measure of this step.

    docs/reference/metrics.md documents the keys.
    """
    totals = state.running
    state.running = RunningTotals()
    weight = max(totals.weight, 1e-9)
    loss = float("nan")
    grad_norm = float("nan")
    if totals.steps:
        loss = totals.loss / weight
        grad_norm = totals.grad_norm / totals.steps
    metrics = {
        f"{names.TRAIN}{term}": value / weight for term, value in sorted(totals.terms.items())
    }
    steps_per_sec, tokens_per_sec = context.timer.read(state.progress)
    metrics |= {
        names.DATA_WAIT_SECONDS: context.trace.wait_seconds,
        names.SKIPPED_RECORDS: float(state.data.skipped_records),
        names.PADDING_FRACTION: 1 - totals.tokens / max(totals.token_slots, 1),
        names.LOSS: loss,
        names.GRAD_NORM: grad_norm,
        names.LEARNING_RATE: float(state.optimizer.learning_rate),
        names.NONFINITE_STEPS: float(state.progress.nonfinite_steps),
        names.STEPS_PER_SEC: steps_per_sec,
        names.TOKENS_PER_SEC: tokens_per_sec,
    }
    for callback in callbacks:
        metrics |= callback.measure(state, result)
    context.log(state, metrics)


def step_seed(seed: int, step: int, rank: int) -> int:
    """The random numbers of a step are a function of (seed, step, rank): there is no random state to save."""
    mixed = seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + rank * 0xC2B2AE3D27D4EB4F
    return (mixed + 0x632BE59BD9B4E019) % 2**64
