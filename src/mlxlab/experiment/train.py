"""Trains one run from its start to its report. The only module that knows every part."""

from pathlib import Path

from mlxlab.checkpoint.resume import ResumePolicy
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.distillation.teachers import DistillationReport
from mlxlab.errors import DivergenceError, RunInterrupted
from mlxlab.experiment.build import Config, Session, build_session, save_inference_config
from mlxlab.experiment.metadata import run_inputs, run_metadata, run_name, run_outcome, run_tags, tracked_until_end
from mlxlab.experiment.report import log_lines, next_commands, write_report
from mlxlab.experiment.run import RunContext
from mlxlab.experiment.start import find_start, log_config_changes, reject_misfit, set_aside_older_results
from mlxlab.inference.predict import model_signature
from mlxlab.training.checkpointer import NoCheckpointer, final_state_digest
from mlxlab.training.state import TrainState


def train(requested: Config, context: RunContext) -> float:
    """Builds, fits and reports one run of the `requested` config; returns the best value of the objective."""
    run_dir, inference_dir = context.run_dir, context.run_dir / "inference"
    start = find_start(requested, context)
    cfg, checkpoint, tracker = start.cfg, start.checkpoint, context.build_tracker(start.cfg["tracking"])
    session = build_session(
        cfg,
        run_dir,
        inference_dir=None if checkpoint is None else checkpoint.run_dir / "inference",
        initialize=checkpoint is None,
        tracker=tracker,
        group=context.group,
    )
    data = session.data
    if checkpoint is not None:
        policy = instantiate(cfg["resume_policy"], ResumePolicy)
        checkpoint = policy.admit(checkpoint, data.fingerprint, data.tokenizer.fingerprint)
    state = session.init_state()
    if checkpoint is not None and reject_misfit(start, state, requested["resume"], context):
        return train(requested, context)  # from an older checkpoint
    log_lines(*session.messages)
    save_inference_config(cfg, data, inference_dir)
    name, metadata = run_name(cfg, run_dir), run_metadata(session, start)
    params = cfg | {"choices": metadata["choices"]}
    tracker.start(params, run_tags(session, start.forked_from), resumed=start.continues, name=name)
    session.context.metadata.update(metadata | {"uid": tracker.uid})
    log_lines(*tracker.describe())
    tracker.log_dataset(cfg["data"]["_target_"].rsplit(".", 1)[-1], data.fingerprint, data.sources[-1])
    tracker.log_artifact(inference_dir, "config")
    log_config_changes(start, run_dir, tracker)
    context.manifest.begin(run_inputs(cfg, metadata, start.forked_from), tracker.uid, name)
    with tracked_until_end(tracker):
        if start.continues:
            tracker.truncate_after(start.step)
        log_lines(*set_aside_older_results(start, run_dir))
        return finish(session, fit_session(session, state, checkpoint, context), context)


def fit_session(session: Session, state: TrainState, checkpoint: Checkpoint | None, context: RunContext) -> TrainState:
    """Trains with the callbacks of the config; signals reach the loop from here on."""
    cfg, data, is_rank_zero = session.cfg, session.data, context.group.rank == 0
    paths = {"folder": context.run_dir, "cache": project_root() / ".cache"}
    callbacks = [instantiate(node, **paths) for node in cfg["callbacks"].values() if node is not None]
    if (teachers := session.teachers) or teachers.residual_base:
        callbacks.append(DistillationReport(teachers, data.valid, data.task, session.trainer.eval_batches))
    callbacks = [callback for callback in callbacks if is_rank_zero or callback.runs_on_all_ranks]
    if checkpoint is not None:
        log_lines(f"resumed from {checkpoint.path.name}", *(f"skipped {line}" for line in checkpoint.skipped))
    context.signals.attach(session.context.control)
    checkpointer = instantiate(cfg["checkpointing"], **paths) if is_rank_zero else NoCheckpointer(context.shared_dir)
    return session.fit(state, callbacks, checkpointer, checkpoint)


def finish(session: Session, state: TrainState, context: RunContext) -> float:
    """Reports a run that reached its end.

    Raises:
        RunInterrupted: a signal ended it; the last state is saved.
        DivergenceError: no evaluation was finite.
    """
    signals, step = context.signals, state.progress.step
    stop_signal = session.context.control.stop_signal or signals.stop_signal  # of any rank
    digest = final_state_digest(state)
    extremes = [int(digest[:7], 16), -int(digest[:7], 16)]
    assert context.group.all_reduce_max(extremes) == extremes, "the processes of this run ended in different states"
    context.manifest.record(run_outcome(session, state, digest))
    if not stop_signal:
        report_run(session, state, context.run_dir)
    print(f"final_state={digest}", flush=True)
    if stop_signal:
        if message := signals.requeue_job():
            log_lines(message)
        raise RunInterrupted(f"stopped at step {step} and saved; resume with resume=auto", stop_signal)
    if state.history.best is None:
        raise DivergenceError("no evaluation was finite: lower trainer.learning_rate or trainer.optimizer.weight_decay")
    return state.history.best


def report_run(session: Session, state: TrainState, run_dir: Path) -> None:
    data, tracker, best_step = session.data, session.context.tracker, state.history.best_step
    print(write_report(state, data.baselines(), run_dir))
    for name in ("summary.md", "metrics.json"):
        tracker.log_artifact(run_dir / name, "")
    best = run_dir / "checkpoints" / f"step-{best_step:08d}"
    if best.is_dir():
        files = {"run": run_dir / "inference"}
        tracker.log_model(best, best_step, files, model_signature(data.task))
    generates = data.task.kind == "language_modelling" and not data.task.masked
    print("\n".join([f"run folder: {run_dir}", *next_commands(run_dir, generates)]))
