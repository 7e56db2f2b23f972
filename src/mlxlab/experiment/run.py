"""Runs one experiment: builds its parts, trains, reports. The only module that knows every part."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mlxlab import backend
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.errors import DivergenceError, RunInterrupted, WriteError
from mlxlab.experiment.build import Session, build_session, package_versions, save_inference_config
from mlxlab.experiment.lock import RunLock
from mlxlab.experiment.manifest import RunManifest, lineage, pairing_key, run_outcome
from mlxlab.experiment.metadata import (
    git_commit,
    log_inputs,
    manifest_fields,
    run_choices,
    run_metadata,
    run_name,
    run_tags,
)
from mlxlab.experiment.rank_zero import RankContext, distributed_context
from mlxlab.experiment.report import log_lines
from mlxlab.experiment.resume_config import (
    check_compatible,
    check_fits,
    log_config_changes,
    refuse_checkpoint,
    resolved,
    resume_config,
)
from mlxlab.experiment.rounds import DistillationRounds, is_multi_round
from mlxlab.experiment.signals import SignalHandler
from mlxlab.experiment.start import find_start, set_aside_older_results
from mlxlab.files.atomic import remove_leftovers

if TYPE_CHECKING:
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.tracking.tracker import Tracker
    from mlxlab.training.state import TrainState


DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EXDEV),
    *(errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ELOOP),
)  # of the machine, not of our code


@dataclass(frozen=True)
class RunContext:
    """The surroundings of one run: its folder, its manifest, signals, and the processes that take part."""

    run_dir: Path
    manifest: RunManifest
    signals: "SignalHandler"
    ranks: RankContext


def run_experiment(cfg: DictConfig, run_dir: Path, *, is_last: bool = False) -> float:
    """Runs one experiment in its folder and returns the best value of `cfg.objective`.

    Args:
        is_last: the process ends after this run: a signal that arrives after its end no longer changes the exit code.

    Raises:
        UserError: anything the user can correct, with its exit code; RunInterrupted when a signal ended the run.
    """
    lock, signals = RunLock(run_dir), instantiate(cfg.signals, SignalHandler)
    lock.acquire()
    completed = False
    signals.start()
    try:
        for folder in (run_dir, run_dir / "inference", run_dir / "plots"):
            remove_leftovers(folder)
        with RunManifest(run_dir, git_commit) as manifest:
            backend.prepare()
            with distributed_context(cfg, run_dir) as (cfg, ranks):
                value = _run(cfg, RunContext(run_dir, manifest, signals, ranks))
        completed = True
        return value
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise WriteError(f"{error.filename or run_dir}: {error.strerror or error}") from None
    finally:
        signals.stop(ignore=completed and is_last)
        lock.release()


def _run(cfg: DictConfig, context: RunContext) -> float:
    if not is_multi_round(cfg):
        return train(cfg, context)
    config = resolved(cfg)
    note = partial(context.manifest.begin, versions=package_versions(), parents=lineage(config), **pairing_key(config))
    return DistillationRounds(cfg, context.ranks, partial(_run_round, context=context), note).run()


def _run_round(cfg: DictConfig, number: int, *, context: RunContext) -> float:
    """Trains one student in `rounds/<number>` of the run folder."""
    run_dir, shared = (folder / "rounds" / str(number) for folder in (context.run_dir, context.ranks.run_dir))
    with RunManifest(run_dir, git_commit) as manifest:
        return train(cfg, RunContext(run_dir, manifest, context.signals, replace(context.ranks, run_dir=shared)))


def train(requested: DictConfig, context: RunContext) -> float:
    """Builds, fits and reports one run; returns the best value of the objective, NaN without an evaluation.

    Args:
        requested: the config of the command line; a resumed run continues with that of its checkpoint.
    """
    from mlxlab.checkpoint.manifest import CorruptCheckpointError

    run_dir, inference_dir = context.run_dir, context.run_dir / "inference"
    start = find_start(requested.resume, context.ranks)
    cfg, changes = resume_config(requested, start.checkpoint)
    tracker: Tracker = instantiate(cfg.tracking, folder=run_dir, project=project_root())
    session = build_session(
        resolved(cfg),
        run_dir,
        inference_dir=start.inference_dir,
        initialize=start.checkpoint is None,
        tracker=tracker,
        group=context.ranks.group,
    )
    checkpoint = check_compatible(cfg, start.checkpoint, session.data)
    state = session.init_state()
    try:
        check_fits(checkpoint, state)
    except CorruptCheckpointError as error:
        refuse_checkpoint(start.checkpoint, changes, requested, str(error), context.ranks)
        return train(requested, context)  # from an older checkpoint
    log_lines(*session.messages)
    save_inference_config(session.cfg, session.data, inference_dir)
    tags, name = run_tags(session) | start.fork_tags, run_name(session.cfg, run_dir)
    choices = run_choices(start.checkpoint)
    tracker.start(session.cfg | {"choices": choices}, tags, resumed=start.continues, name=name)
    session.context.metadata.update(run_metadata(session, tracker, choices))
    log_lines(*tracker.describe())
    log_inputs(session, tracker, inference_dir)
    log_config_changes(changes, checkpoint, run_dir, tracker)
    context.manifest.begin(**manifest_fields(session, checkpoint, run_dir))
    with _ended(tracker, session):
        if start.continues:
            tracker.truncate_after(start.step)
        log_lines(*set_aside_older_results(start, run_dir))
        return finish(session, fit(session, state, checkpoint, context), context)


def fit(session: Session, state: "TrainState", checkpoint: "Checkpoint | None", context: RunContext) -> "TrainState":
    """Trains with the callbacks of the config; signals reach the loop from here on."""
    from mlxlab.distillation.report import distillation_callbacks

    paths = {"folder": context.run_dir, "cache": project_root() / ".cache"}
    callbacks = [instantiate(node, **paths) for node in session.cfg["callbacks"].values() if node is not None]
    data, max_batches = session.data, session.trainer.eval_batches
    callbacks += distillation_callbacks(session.teachers, data.valid, data.task, max_batches)
    if checkpoint is not None:
        log_lines(f"resumed from {checkpoint.path.name}", *(f"skipped {line}" for line in checkpoint.skipped))
    context.signals.attach(session.context.control)
    checkpointer = context.ranks.select_checkpointer(instantiate(session.cfg["checkpointing"], **paths))
    return session.fit(state, context.ranks.select_callbacks(callbacks), checkpointer, checkpoint)


def finish(session: Session, state: "TrainState", context: RunContext) -> float:
    """Reports a run that reached its end.

    Raises:
        RunInterrupted: a signal ended it; the last state is saved.
        DivergenceError: no evaluation was finite.
    """
    from mlxlab.training.checkpointer import final_state_digest

    signals, step = context.signals, state.progress.step
    stop_signal = session.context.control.stop_signal or signals.stop_signal  # of any rank
    digest = context.ranks.check_equal(final_state_digest(state))
    context.manifest.update(outcome=run_outcome(state, session.context.monitor, digest))
    if stop_signal:
        print(f"final_state={digest}")
        if message := signals.requeue_job():
            log_lines(message)
        raise RunInterrupted(f"stopped at step {step} and saved; resume with resume=auto", stop_signal)
    report_run(session, state, context.run_dir)
    print(f"final_state={digest}", flush=True)
    if state.history.best is None:
        raise DivergenceError("no evaluation was finite: lower trainer.learning_rate or trainer.optimizer.weight_decay")
    return state.history.best


def report_run(session: Session, state: "TrainState", run_dir: Path) -> None:
    from mlxlab.experiment.report import next_commands, write_report
    from mlxlab.inference.signature import model_signature

    data, tracker, best_step = session.data, session.context.tracker, state.history.best_step
    print(write_report(state, data.baselines(), run_dir))
    for name in ("summary.md", "metrics.json"):
        tracker.log_artifact(run_dir / name, "")
    best = run_dir / "checkpoints" / f"step-{best_step:08d}"
    if best.is_dir():
        files = {"run": run_dir / "inference"}
        tracker.log_model(best, step=best_step, files=files, signature=model_signature(data.task))
    generates = data.task.kind == "language_modelling" and not data.task.masked
    print("\n".join([f"run folder: {run_dir}", *next_commands(run_dir, generates)]))


@contextmanager
def _ended(tracker: "Tracker", session: Session) -> Iterator[None]:
    """Closes the run of the tracker with the status that it ended with."""
    status: Any = "FAILED"
    try:
        yield
        status = "KILLED" if session.context.control.stop_signal else "FINISHED"
    except (KeyboardInterrupt, RunInterrupted):
        status = "KILLED"
        raise
    finally:
        tracker.end(status)
