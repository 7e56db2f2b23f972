"""Trains one run from start to report."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import cast

import yaml

from mlxlab.backend.ops.native import state as native
from mlxlab.callbacks.csv_logger import metrics_table
from mlxlab.callbacks.early_stopping import Pruning
from mlxlab.checkpoint.frozen_weights import FOLDER as BASE
from mlxlab.checkpoint.names import FOLDER, folder_name, whole_run
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import instantiate
from mlxlab.data.dataset import MANY
from mlxlab.distillation.teachers import DistillationReport
from mlxlab.errors import ConfigError, DataError, DivergenceError, RunInterrupted, RunPruned
from mlxlab.evaluation.at_end import (
    EvaluationLimits,
    evaluate_at_end,
    forget_evaluation,
    write_files,
)
from mlxlab.evaluation.parts.data import Config
from mlxlab.files.atomic import write_atomic
from mlxlab.inference.model_signature import model_signature
from mlxlab.inference.restore import restore_encoder
from mlxlab.models.model import Model, count_parameters, count_trainable
from mlxlab.past_runs.collect_record import shape_of, training_facts
from mlxlab.run.context import RunContext, run_name, set_aside_earlier_run, tracked_name
from mlxlab.run.first_step import take_step
from mlxlab.run.metadata import (
    log_config_changes,
    log_datasets,
    log_transfer,
    run_metadata,
    run_tags,
    session_record,
)
from mlxlab.run.report import (
    RunLockRecorder,
    RunReport,
    find_report,
    generate_samples,
    sample_prompts,
    tracked_until_end,
)
from mlxlab.run.resume.load import fit_checkpoint, is_finished, prepare_checkpoints, print_state
from mlxlab.run.resume.policy import Transfer
from mlxlab.run.resume.start import Start, plan_start, use_kernels
from mlxlab.run.session import Session, build_callbacks, build_session, check_callback
from mlxlab.terminal.messages import log_lines
from mlxlab.terminal.program import display_path, resume_command
from mlxlab.terminal.wording import percent
from mlxlab.training.callback import Callback
from mlxlab.training.checkpointer import NoCheckpointer, final_state_digest
from mlxlab.training.distributed.launch_env import refuse_unsharded
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.state import TrainState
from mlxlab.training.stop_rule import stop_of, stop_rule

logger = logging.getLogger(__name__)


def train(requested: Config, context: RunContext) -> float:
    """Builds, fits and reports one run of the `requested` config; returns the best value of the objective."""
    start = plan_start(requested, context.shared_dir, context.group)
    use_kernels(start, context)
    if context.group.shards_weights:
        refuse_unsharded(start.cfg)
    callbacks = [
        *build_callbacks(start.cfg, context.run_dir),
        *map(check_callback, context.callbacks),
    ]
    rule = stop_rule()
    if rule is not None:
        callbacks.append(Pruning(rule))
    cloud = context.build_cloud(start.cfg["cloud"])
    tracker = context.build_tracker(start.cfg["tracking"])
    table = metrics_table(callbacks)

    session = build_session(start, context.run_dir, tracker=tracker, group=context.group)
    state = session.init_state()
    checkpoint, transfer = fit_checkpoint(start, session, state)
    if checkpoint and is_finished(start, session.trainer, state, checkpoint, context):
        # Copies may be missing from the session before.
        with cloud.copies(context.run_dir, context.writer.record.id, table):
            best = checkpoint.state["history"].best
            return float("nan") if best is None else best
    for callback in callbacks:
        callback.check(state, checkpoint)

    prepare_folder(session, start, context)
    begin_records(session, start, checkpoint, transfer, context)
    report = find_report(callbacks)
    with tracked_until_end(tracker, context, report):
        if start.continues:
            tracker.truncate_after(start.last_step)
        checkpoint = prepare_checkpoints(checkpoint, start, context, session)
        with cloud.copies(context.run_dir, context.writer.record.id, table):
            lock = RunLockRecorder(context, session.context.metadata, start)
            state = fit_session(session, state, [*callbacks, lock], checkpoint, context)
            return finish(session, state, context, lock, report)


def prepare_folder(session: Session, start: Start, context: RunContext) -> None:
    """Says what is trained, sets an earlier run aside, and writes what inference needs."""
    data = session.data
    log_lines(*session.messages)
    trained = count_trainable(session.model)
    total = count_parameters(session.model)
    if trained != total:
        share = percent(trained / total, 2)
        log_lines(f"trains {trained:,} of {total:,} parameters ({share})")
    lengths = getattr(data, "row_lengths", None)
    if lengths is not None and lengths.share > MANY:
        enough = f"data.seq_len={lengths.needed} holds {percent(1 - MANY, 0)} whole"
        logger.warning(f"{lengths.describe()}; {enough}")
    if start.continues:
        forget_evaluation(context.run_dir)
    else:
        log_lines(*set_aside_earlier_run(context.writer))
    inference_dir = context.run_dir / "inference"
    inference_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(inference_dir / "config.yaml", yaml.safe_dump(start.cfg, sort_keys=False))
    data.save(inference_dir)


def begin_records(
    session: Session,
    start: Start,
    checkpoint: Checkpoint | None,
    carried: Transfer | None,
    context: RunContext,
) -> None:
    """Starts the run in the tracker and in its record, with what a resume changes.

    Args:
        carried: the arrays of the checkpoint of another model.
    """
    cfg = start.cfg
    run_dir = context.run_dir
    tracker = session.context.tracker
    metadata = run_metadata(session, context.command, checkpoint, start)
    name = run_name(cfg, metadata["choices"], run_dir)
    tracker.start(
        cfg | {"choices": metadata["choices"]},
        run_tags(cfg, context.command, start.fork),
        resumed=start.continues,
        name=cfg["name"] or tracked_name(name, context.command.overrides),
    )
    session.context.metadata.update(metadata | {"uid": tracker.uid})
    if native.is_active():
        log_lines(
            f"kernels: {native.current()}"
            " (C++, compiled for this processor; see mlxlab kernels info)"
        )
    log_lines(*tracker.describe())
    log_datasets(cfg["data"], session.data, tracker)
    tracker.log_artifact(run_dir / "inference", "config")
    log_config_changes(start.changes, start.last_step, run_dir, tracker)
    transfer = session.initial_weights or carried
    if transfer:
        log_transfer(transfer, run_dir, tracker)
    first = context.command.first
    if start.continues and checkpoint and context.writer.earlier:
        first = context.writer.earlier.command.first
    record = session_record(session, metadata, first, start.fork)
    record.id = tracker.uid
    record.name = name
    context.writer.begin(record)


def preview_run(requested: Config, run_dir: Path, folder: Path) -> str:
    """Takes one step from the state that a run would start with; what the step needs, and what callbacks would change.

    Args:
        run_dir: that of the run, which is only read.
        folder: a temporary one.

    Raises:
        ConfigError: a callback cannot serve the run.
        UserError: data, model, teachers or checkpoint are at fault.
    """
    start = plan_start(requested, run_dir, ProcessGroup(), read_only=True)
    callbacks = build_callbacks(start.cfg, folder)
    session = build_session(start, folder)
    state = session.init_state()
    checkpoint, _ = fit_checkpoint(start, session, state)
    previews = [callback.preview(state, checkpoint) for callback in callbacks]
    previews.append(take_step(session, state).as_text())
    return "\n\n".join(filter(None, previews))


def fit_session(
    session: Session,
    state: TrainState,
    callbacks: list[Callback],
    checkpoint: Checkpoint | None,
    context: RunContext,
) -> TrainState:
    """Trains with the callbacks that the rank of this process has; signals reach the loop from here on."""
    data = session.data
    teachers = session.teachers
    is_rank_zero = context.group.rank == 0
    if teachers or teachers.residual_base:
        report = DistillationReport(teachers, data.valid, data.task, session.trainer.eval_batches)
        callbacks = [*callbacks, report]
    callbacks = [callback for callback in callbacks if is_rank_zero or callback.runs_on_all_ranks]
    if checkpoint is not None:
        log_lines(f"resumed from {checkpoint.path.name}")
        log_lines(*(f"skipped {line}" for line in checkpoint.skipped))
        limit = session.trainer.max_steps
        if limit is not None and checkpoint.step > limit:
            log_lines(
                f"trainer.max_steps={limit} is already passed (step {checkpoint.step}):"
                " the run ends here"
            )
    early_end = session.trainer.early_end(state.data.batches_per_epoch)
    if early_end:
        log_lines(early_end)
    context.signals.attach(session.context.control)
    if is_rank_zero:
        checkpointer = instantiate(session.cfg["checkpointing"], folder=context.run_dir)
    else:
        checkpointer = NoCheckpointer(context.shared_dir)
    return session.fit(state, callbacks, checkpointer, checkpoint)


def finish(
    session: Session,
    state: TrainState,
    context: RunContext,
    lock: RunLockRecorder,
    report: RunReport | None,
) -> float:
    """Evaluates a run that ended.

    Raises:
        RunInterrupted, RunPruned: a signal or a sweep stopped it; the last state is saved.
        DivergenceError: no evaluation was finite, or every step was skipped.
        ConfigError: a callback stopped it before the first evaluation.
    """
    signals = context.signals
    step = state.progress.step
    stop_signal = session.context.control.stop_signal or signals.report_stop_signal
    (stop_signal,) = context.group.all_reduce_max([stop_signal])  # Any rank may have received it.
    digest = final_state_digest(state)
    extremes = [int(digest[:7], 16), -int(digest[:7], 16)]
    assert context.group.all_reduce_max(extremes) == extremes, (
        "the processes of this run ended in different states"
    )
    training = training_facts(context.writer.record, state.progress, state.history, digest)
    context.writer.record.model.shape = shape_of(state.architecture.node)
    context.writer.trained(training, count_parameters(state.whole_model))
    lock.end(training)
    reason = session.context.control.stop_reason
    best = state.history.best
    stop = stop_of(reason)
    if not stop_signal and stop is None:
        stop_signal = report_run(session, state, context, report)
    print_state(digest)
    if stop_signal:
        signals.requeue_job()
        from mlxlab.config.hydra.job import is_sweep_job

        done = f"stopped at step {step} and saved"
        if reason == "done":
            done += ": all steps are done, the final evaluation is not"
        if not is_sweep_job():
            done += f"; continue it with: {resume_command(whole_run(context.run_dir))}"
        raise RunInterrupted(done, stop_signal)
    if best is None and not state.history.evaluations:
        raise ConfigError(f"stopped at step {step}, before the first evaluation: {reason}")
    if best is None:
        raise DivergenceError(
            "no evaluation was finite: lower trainer.learning_rate or trainer.optimizer.weight_decay"
        )
    if step > 0 and state.progress.nonfinite_steps == step:
        raise DivergenceError(f"all {step} steps were skipped: loss or gradient not finite")
    if stop_rule() is not None:
        session.context.tracker.set_tags({"mlxlab.sweep.trial": reason if stop else "finished"})
    if stop is not None:
        raise RunPruned(reason, best)
    return best


def report_run(
    session: Session, state: TrainState, context: RunContext, report: RunReport | None
) -> int:
    """Evaluates and reports a run that ended; returns the number of a signal that stopped this, else 0."""
    data = session.data
    tracker = session.context.tracker
    run_dir = context.run_dir
    stop_signal = 0

    def should_stop() -> bool:
        nonlocal stop_signal
        (stop_signal,) = context.group.all_reduce_max([context.signals.report_stop_signal])
        return stop_signal != 0

    trainer = session.trainer
    limits = EvaluationLimits(trainer.eval_batches, trainer.test_batches)
    with context.group.computing():
        results = evaluate_at_end(
            state, data, context.shared_dir, session.cfg["objective"], limits, should_stop
        )
    if results is None:
        return stop_signal
    write_files(results, data, tracker, run_dir, state.progress.step)
    generates = data.task.kind == "language_modelling" and not data.task.masked
    if generates and report and context.group.rank == 0 and not state.sharding.is_sharded:
        prompts = sample_prompts(data, data.tokenizer, report.samples)
        if prompts:
            # A model whose logits are not finite generates none.
            with state.eval_weights() as model, suppress(DataError):
                context.writer.record.samples = generate_samples(
                    cast(Model, model), data.tokenizer, prompts, report.sample_tokens
                )
    context.writer.evaluated(results.record)
    best_step = state.history.best_step
    best = run_dir / FOLDER / folder_name(best_step)
    inference_dir = run_dir / "inference"
    _, encoder = restore_encoder(inference_dir)
    if best.is_dir():
        files = {"run": inference_dir}
        if (run_dir / BASE).is_dir():
            files["base"] = run_dir / BASE
        tracker.log_model(best, best_step, files, model_signature(encoder))
    print(f"run folder: {display_path(run_dir)}")
    return 0
