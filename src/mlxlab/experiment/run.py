"""Runs one experiment: builds its parts, trains, reports. The only place that knows every part."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mlxlab import backend
from mlxlab.config.check import check
from mlxlab.config.hydra.overrides import cli_overrides, group_choices
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.config.resume_overrides import merge_for_resume, record_changes
from mlxlab.errors import RunInterrupted
from mlxlab.experiment.build import Session, build_session, package_versions, save_inference_config
from mlxlab.experiment.lock import RunLock
from mlxlab.experiment.manifest import RunManifest, lineage, pairing_key, run_outcome
from mlxlab.experiment.rank_zero import RankContext, distributed_context
from mlxlab.experiment.rounds import DistillationRounds, is_multi_round
from mlxlab.tracking import provenance
from mlxlab.tracking.journal import PARENT

if TYPE_CHECKING:
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.experiment.signals import SignalHandler
    from mlxlab.tracking.tracker import Tracker

Changes = dict[str, tuple[Any, Any]]  # key -> (old, new)


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
        with RunManifest(run_dir, _git_commit) as manifest:
            backend.prepare()
            if is_multi_round(cfg):
                config = _resolved(cfg)
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

    with RunManifest(run_dir, _git_commit) as manifest:
        return train(cfg, RunContext(run_dir, manifest, signals, RankContext(SingleProcess(), run_dir)))


def train(cfg: DictConfig, context: RunContext) -> float:
    """Builds, fits and reports one run; returns the best value of the objective, NaN without an evaluation."""
    from mlxlab.checkpoint.resume import resolve_resume

    run_dir, inference_dir = context.run_dir, context.run_dir / "restore"
    checkpoint = resolve_resume(cfg.resume, run_dir)
    cfg, changes = resume_config(cfg, checkpoint)
    resumed = checkpoint is not None
    tracker: Tracker = instantiate(cfg.tracking, folder=run_dir, project=project_root())
    session = build_session(
        _resolved(cfg),
        run_dir,
        inference_dir=inference_dir if resumed else None,
        initialize=not resumed,
        tracker=tracker,
    )
    checkpoint = check_compatible(cfg, checkpoint, session.data)
    print_status(*session.messages)
    save_inference_config(session.cfg, session.data, inference_dir)
    tracker.start(session.cfg, run_tags(session), resumed=resumed, name=run_name(cfg, run_dir))
    session.state.facts |= run_metadata(session, tracker)
    print_status(*tracker.describe())
    log_inputs(session, tracker, inference_dir)
    log_config_changes(changes, checkpoint, run_dir, tracker)
    context.manifest.begin(**manifest_fields(session, checkpoint, context))
    with _ended(tracker, session):
        fit(session, checkpoint, context)
        return finish(session, context)


def resume_config(cfg: DictConfig, checkpoint: "Checkpoint | None") -> tuple[DictConfig, Changes]:
    """The config of the checkpoint with the overrides of the present command line, and the keys they change."""
    if checkpoint is None:
        return cfg, {}
    metadata = checkpoint.state["facts"]
    choices = (metadata["choices"], group_choices())
    merged, changes = merge_for_resume(metadata["config"], _resolved(cfg), cli_overrides(), choices, conf_dir())
    resumed = OmegaConf.create(merged)
    check(resumed)
    return resumed, changes


def check_compatible(cfg: DictConfig, checkpoint: "Checkpoint | None", data: Any) -> "Checkpoint | None":
    """The checkpoint for the present data; raises NotAllowedError where data or tokenizer changed since the save."""
    if checkpoint is None:
        return None
    policy = instantiate(cfg.resume_policy)
    return replace(checkpoint, state=policy.admit(checkpoint.state, data.fingerprint, data.tokenizer.fingerprint))


def log_config_changes(changes: Changes, checkpoint: "Checkpoint | None", run_dir: Path, tracker: "Tracker") -> None:
    """Records what a resume changes: in `resume_changes.json`, as tags, and on the terminal."""
    if checkpoint is None or not changes:
        return
    file, number = record_changes(run_dir, checkpoint.step, changes)
    lines = {key: f"{old} -> {new}" for key, (old, new) in changes.items()}
    print_status(*(f"changed since the checkpoint: {key}: {line}" for key, line in lines.items()))
    tracker.tag({f"resume.{number}.{key}": line for key, line in lines.items()})
    tracker.artifact(file, "config")


def run_metadata(session: Session, tracker: "Tracker") -> dict[str, Any]:
    """What a checkpoint must carry to be resumed, verified and compared later."""
    return {
        "config": session.cfg,
        "config_hash": hashlib.sha256(json.dumps(session.cfg, sort_keys=True).encode()).hexdigest(),
        "choices": group_choices(),
        "versions": package_versions(),
        "data": session.data.fingerprint,
        "held_out": session.data.held_out,
        "tokenizer": session.data.tokenizer.fingerprint,
        "teachers": session.teachers.names,
        "uid": tracker.uid,
    }


def run_tags(session: Session) -> dict[str, str]:
    from mlxlab.models.model import count_parameters

    cfg, parameters = session.cfg, str(count_parameters(session.model))
    tags = {"overrides": " ".join(cli_overrides()), "parameters": parameters, "objective": cfg["objective"]}
    return tags | {str(key): str(value) for key, value in cfg["tags"].items()} | backend.describe()


def run_name(cfg: DictConfig, run_dir: Path) -> str:
    choices = group_choices()
    parts = [choices[group] for group in ("model", "model/size", "data", "trainer") if group in choices]
    return cfg.name or "-".join(parts) or run_dir.name


def log_inputs(session: Session, tracker: "Tracker", inference_dir: Path) -> None:
    """Records the data set and the inference config with the tracker."""
    data = session.data
    tracker.dataset(session.cfg["data"]["_target_"].rsplit(".", 1)[-1], data.fingerprint, data.sources[-1])
    tracker.artifact(inference_dir, "config")


def manifest_fields(session: Session, checkpoint: "Checkpoint | None", context: RunContext) -> dict[str, Any]:
    """What the manifest records of a run before it trains."""
    run_dir, metadata = context.run_dir.absolute(), session.state.facts
    is_own = checkpoint is None or checkpoint.path.absolute().is_relative_to(run_dir)
    source = None if checkpoint is None or is_own else checkpoint.path
    return {
        "id": metadata["uid"] or None,
        "name": run_name(OmegaConf.create(session.cfg), context.run_dir),
        "parents": lineage(session.cfg, source, os.environ.get(PARENT, "")),
        "overrides": cli_overrides(),
        **pairing_key(session.cfg),
        **{key: metadata[key] for key in ("config_hash", "versions", "data", "tokenizer", "teachers")},
    }


def fit(session: Session, checkpoint: "Checkpoint | None", context: RunContext) -> None:
    """Trains with the callbacks of the config; signals reach the loop from here on."""
    paths = {"folder": context.run_dir, "cache": project_root() / ".cache"}
    callbacks = [instantiate(node, **paths) for node in session.cfg["callbacks"].values() if node is not None]
    if checkpoint is not None:
        print_status(f"resumed from {checkpoint.path.name}", *(f"skipped {line}" for line in checkpoint.skipped))
        session.state.tracker.rewind(checkpoint.step)
    context.signals.watch(session.state)
    session.fit(context.ranks.admit(session.state, callbacks), checkpoint, context.ranks.group)


def finish(session: Session, context: RunContext) -> float:
    """Reports a run that reached its end.

    Raises:
        RunInterrupted: a signal ended it; the last state is saved.
    """
    from mlxlab.callbacks.checkpointing import run_state_digest

    state, signals = session.state, context.signals
    digest = context.ranks.agreed(run_state_digest(state))
    context.manifest.update(outcome=run_outcome(state, digest))
    if signals.stopping:
        print(f"final_state={digest}")
        if message := signals.put_back():
            print_status(message)
        raise RunInterrupted(f"stopped at step {state.step} and saved; resume with resume=auto", signals.stopping)
    report_run(session, context.run_dir)
    print(f"final_state={digest}", flush=True)
    return state.best if state.best is not None else float("nan")


def report_run(session: Session, run_dir: Path) -> None:
    from mlxlab.experiment.report import write_report
    from mlxlab.inference.signature import model_signature

    state, data = session.state, session.data
    print(write_report(state, data.baselines(), run_dir))
    for name in ("summary.md", "metrics.json"):
        state.tracker.artifact(run_dir / name, "")
    best = run_dir / "checkpoints" / f"step-{state.best_step:08d}"
    if best.is_dir():
        files = {"run": run_dir / "restore"}
        state.tracker.model(best, step=state.best_step, files=files, signature=model_signature(data.task))
    print(f"run folder: {run_dir}")


@contextmanager
def _ended(tracker: "Tracker", session: Session) -> Iterator[None]:
    """Closes the run of the tracker with the status that it ended with."""
    status: Any = "FAILED"
    try:
        yield
        status = "KILLED" if session.state.signal else "FINISHED"
    except (KeyboardInterrupt, RunInterrupted):
        status = "KILLED"
        raise
    finally:
        tracker.end(status)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    return config


def _git_commit() -> dict[str, Any]:
    tags = provenance.git(project_root())
    return {"git": {"commit": tags.get("mlflow.source.git.commit"), "dirty": tags["git.dirty"]}}


def print_status(*lines: str) -> None:
    """Lines for the user on standard error; results go to standard output."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
