"""Runs one experiment: builds its parts, trains, reports. The only place that knows every part."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mlxlab import backend
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.errors import RunInterrupted
from mlxlab.experiment.build import Session, build_session, package_versions, save_inference_config
from mlxlab.experiment.lock import RunLock
from mlxlab.experiment.manifest import RunManifest, lineage, pairing_key, run_outcome
from mlxlab.experiment.metadata import (
    git_commit,
    log_inputs,
    manifest_fields,
    run_metadata,
    run_name,
    run_tags,
)
from mlxlab.experiment.rank_zero import RankContext, distributed_context
from mlxlab.experiment.report import print_status
from mlxlab.experiment.resume_config import check_compatible, log_config_changes, resolved, resume_config
from mlxlab.experiment.rounds import DistillationRounds, is_multi_round

if TYPE_CHECKING:
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.experiment.signals import SignalHandler
    from mlxlab.tracking.tracker import Tracker
    from mlxlab.training.state import TrainState


@dataclass(frozen=True)
class RunContext:
    """The surroundings of one run: its folder, its manifest, signals, and the processes that take part."""

    run_dir: Path
    manifest: RunManifest
    signals: "SignalHandler"
    ranks: RankContext


def run_experiment(cfg: DictConfig, run_dir: Path) -> float:
    """Runs one experiment in its folder and returns the best value of `cfg.objective`.

    Raises:
        UserError: anything the user can correct, with its exit code; RunInterrupted when a signal ended the run.
    """
    lock, signals = RunLock(run_dir), instantiate(cfg.signals)
    lock.acquire()
    signals.start()
    try:
        with RunManifest(run_dir, git_commit) as manifest:
            backend.prepare()
            if is_multi_round(cfg):
                config = resolved(cfg)
                note = partial(
                    manifest.begin, versions=package_versions(), parents=lineage(config), **pairing_key(config)
                )
                return DistillationRounds(cfg, run_dir, partial(_run_round, signals=signals), note).run()
            with distributed_context(cfg, run_dir) as (cfg, ranks):
                return train(cfg, RunContext(run_dir, manifest, signals, ranks))
    finally:
        signals.stop()
        lock.release()


def _run_round(cfg: DictConfig, run_dir: Path, *, signals: "SignalHandler") -> float:
    from mlxlab.distributed.process_group import SingleProcess

    with RunManifest(run_dir, git_commit) as manifest:
        return train(cfg, RunContext(run_dir, manifest, signals, RankContext(SingleProcess(), run_dir)))


def train(cfg: DictConfig, context: RunContext) -> float:
    """Builds, fits and reports one run; returns the best value of the objective, NaN without an evaluation."""
    from mlxlab.checkpoint.resume import resolve_resume

    run_dir, inference_dir = context.run_dir, context.run_dir / "inference"
    checkpoint = resolve_resume(cfg.resume, run_dir)
    cfg, changes = resume_config(cfg, checkpoint)
    resumed = checkpoint is not None
    tracker: Tracker = instantiate(cfg.tracking, folder=run_dir, project=project_root())
    session = build_session(
        resolved(cfg),
        run_dir,
        inference_dir=inference_dir if resumed else None,
        initialize=not resumed,
        tracker=tracker,
        group=context.ranks.group,
    )
    checkpoint = check_compatible(cfg, checkpoint, session.data)
    print_status(*session.messages)
    save_inference_config(session.cfg, session.data, inference_dir)
    tracker.start(session.cfg, run_tags(session), resumed=resumed, name=run_name(session.cfg, run_dir))
    session.context.metadata.update(run_metadata(session, tracker))
    print_status(*tracker.describe())
    log_inputs(session, tracker, inference_dir)
    log_config_changes(changes, checkpoint, run_dir, tracker)
    context.manifest.begin(**manifest_fields(session, checkpoint, run_dir))
    with _ended(tracker, session):
        return finish(session, fit(session, checkpoint, context), context)


def fit(session: Session, checkpoint: "Checkpoint | None", context: RunContext) -> "TrainState":
    """Trains with the callbacks of the config; signals reach the loop from here on."""
    from mlxlab.distillation.report import distillation_callbacks

    paths = {"folder": context.run_dir, "cache": project_root() / ".cache"}
    callbacks = [instantiate(node, **paths) for node in session.cfg["callbacks"].values() if node is not None]
    data, max_batches = session.data, session.trainer.eval_batches
    callbacks += distillation_callbacks(session.teachers, data.valid, data.task, max_batches)
    if checkpoint is not None:
        print_status(f"resumed from {checkpoint.path.name}", *(f"skipped {line}" for line in checkpoint.skipped))
        session.context.tracker.truncate_after(checkpoint.step)
    context.signals.watch(session.context.control)
    checkpointer = context.ranks.select_checkpointer(instantiate(session.cfg["checkpointing"], **paths))
    return session.fit(context.ranks.select_callbacks(callbacks), checkpointer, checkpoint)


def finish(session: Session, state: "TrainState", context: RunContext) -> float:
    """Reports a run that reached its end.

    Raises:
        RunInterrupted: a signal ended it; the last state is saved.
    """
    from mlxlab.training.checkpointer import final_state_digest

    signals = context.signals
    digest = context.ranks.agreed(final_state_digest(state))
    context.manifest.update(outcome=run_outcome(state, session.context.monitor, digest))
    if signals.stopping:
        print(f"final_state={digest}")
        if message := signals.put_back():
            print_status(message)
        step = state.progress.step
        raise RunInterrupted(f"stopped at step {step} and saved; resume with resume=auto", signals.stopping)
    report_run(session, state, context.run_dir)
    print(f"final_state={digest}", flush=True)
    return state.history.best if state.history.best is not None else float("nan")


def report_run(session: Session, state: "TrainState", run_dir: Path) -> None:
    from mlxlab.experiment.report import write_report
    from mlxlab.inference.signature import model_signature

    data, tracker, best_step = session.data, session.context.tracker, state.history.best_step
    print(write_report(state, data.baselines(), run_dir))
    for name in ("summary.md", "metrics.json"):
        tracker.log_artifact(run_dir / name, "")
    best = run_dir / "checkpoints" / f"step-{best_step:08d}"
    if best.is_dir():
        files = {"run": run_dir / "inference"}
        tracker.log_model(best, step=best_step, files=files, signature=model_signature(data.task))
    print(f"run folder: {run_dir}")


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
