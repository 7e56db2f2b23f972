"""Metadata that a run records in its checkpoints, its record and the tracker."""

import hashlib
import json
import os
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.checkpoint.continuation import Continuation
from mlxlab.checkpoint.state import RunMetadata
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.checkpoint.transfer_report import TransferRecord
from mlxlab.data.dataset import DataModule
from mlxlab.distillation.options import read_options
from mlxlab.experiment.build import Config
from mlxlab.experiment.facts.command_lines import CommandLine, continuations
from mlxlab.experiment.facts.session_facts import data_facts, model_facts, training_before
from mlxlab.experiment.resume.changes import Changes, record_changes
from mlxlab.experiment.resume.policy import Transfer
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.ops.native import state as kernels
from mlxlab.record import run_record as records
from mlxlab.record.run_record import Code, Command, Parent, RunRecord
from mlxlab.terminal.messages import log_lines
from mlxlab.tracking.journal import PARENT
from mlxlab.tracking.tracker import OBJECTIVE, OVERRIDES, Tracker

if TYPE_CHECKING:
    from mlxlab.experiment.session import Session
    from mlxlab.experiment.start import Start


def run_metadata(
    session: "Session", command: CommandLine, resumed: Checkpoint | None, start: "Start"
) -> RunMetadata:
    """Metadata that a checkpoint needs to be resumed, verified and compared later."""
    cfg = session.cfg
    data = session.data
    initial = session.initial_weights
    continued: list[Continuation] = []
    initial_weights = {} if initial is None else {initial.source: initial.digest}
    if resumed is not None:
        before = resumed.state["metadata"]
        at = (resumed.step, start.plan.before.node if start.plan else {})
        continued = continuations(command, before, at, start.changes, start.continues)
        command, initial_weights = (
            command.after(before["overrides"], before["choices"]),
            before["initial_weights"],
        )
    metadata: RunMetadata = {
        "config": cfg,
        "config_hash": hashlib.sha256(json.dumps(cfg, sort_keys=True).encode()).hexdigest(),
        "choices": command.choices,
        "overrides": command.overrides,
        "continued": continued,
        "requested": [*start.plan.requested] if start.plan else [],
        "versions": package_versions(),
        "data": data.fingerprint,
        "held_out": data.held_out,
        "tokenizer": data.tokenizer.fingerprint,
        "teachers": session.teachers.digests,
        "initial_weights": initial_weights,
        "kernels": str(kernels.current()),
        "uid": "",
    }
    if cfg["trainer"]["epochs"] == "auto" and (epochs := session.trainer.length.epochs):
        metadata["epochs"] = epochs
    return metadata


def run_tags(cfg: Config, command: CommandLine, fork: Checkpoint | None) -> dict[str, str]:
    tags = {OVERRIDES: shlex.join(command.overrides), OBJECTIVE: cfg["objective"]}
    if fork is not None:
        tags["mlxlab.forked_from"] = str(fork.path.absolute())
    if cfg["rerun"] is not None:
        tags["mlxlab.rerun_of"] = cfg["rerun"]
    return tags | {str(key): str(value) for key, value in cfg["tags"].items()}


def new_record(
    cfg: Config,
    command: CommandLine,
    metadata: RunMetadata | None = None,
    fork: Checkpoint | None = None,
    session: "Session | None" = None,
    earlier: RunRecord | None = None,
) -> RunRecord:
    """What is known of a run before its first step.

    Args:
        metadata: that of its checkpoints.
        fork: the checkpoint of another run that this one starts from.
        session: its messages are on the data and the teachers; None for rounds, each of which has its own.
        earlier: the record of the attempt whose checkpoint this one continues.
    """
    fork_path = None if fork is None else fork.path.absolute()
    record = RunRecord(
        id="",
        name="",
        status="running",
        attempts=[],
        command=Command(command.first, command.overrides, command.choices),
        data=data_facts(cfg, session),
        training=training_before(cfg, session),
        seed=cfg["seed"],
        code=Code(versions=package_versions()),
        config=cfg,
        parents=lineage(cfg, fork_path, os.environ.get(PARENT, "")),
    )
    if metadata is not None:
        # Those of all attempts: a resume composes nothing of what the run began with.
        record.command.overrides = metadata["overrides"]
        record.command.choices = metadata["choices"]
        record.command.continued = [
            records.Continuation(**each) for each in metadata.get("continued", [])
        ]
        record.data.fingerprint = metadata["data"]
        record.data.tokenizer_fingerprint = metadata["tokenizer"]
        record.code.kernels = metadata["kernels"]
    if earlier is not None:
        record.command.first = earlier.command.first
    record.data.name = record.command.choices.get("data", "")
    record.model = model_facts(record.command, session)
    return record


def lineage(cfg: Config, checkpoint: Path | None = None, sweep: str = "") -> list[Parent]:
    """The sources of a run, by its resolved config: checkpoint or config of another, teachers, losses, a sweep."""
    distillation = read_options(cfg["trainer"].get("distillation"))
    data = cfg["data"]
    sources = [
        ("checkpoint", checkpoint),
        *((key, cfg["model"].get(key)) for key in ("pretrained", "init_from")),
    ]
    sources += [("rerun", cfg["rerun"])]
    sources += [("teacher", name) for name in distillation.teachers or []]
    sources += [("member", name) for name in distillation.members]
    sources += [("selection", (data.get("select") or {}).get("source")), ("sweep", sweep)]
    return [Parent(kind, str(name)) for kind, name in sources if name and name != "previous"]


def package_versions() -> dict[str, str]:
    """Versions of the packages on which a bitwise resume depends."""
    return {name: version(name) for name in ("mlxlab", "mlx", "numpy", "tokenizers")}


def log_datasets(node: Config, data: DataModule, tracker: Tracker) -> None:
    """Records the training and the validation data, by an address that loads if the config has one."""
    name = node["_target_"].rsplit(".", 1)[-1]
    training = _address(node.get("source")) or data.sources[-1]
    tracker.log_dataset(name, data.fingerprint, training)
    validation = _address(node.get("valid_source")) or training
    tracker.log_dataset(f"{name} (validation)", data.held_out, validation, "validation")


def _address(source: object) -> str | None:
    """A file as an absolute path, another address as it is."""
    if not isinstance(source, str):
        return None
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else source


def log_transfer(transfer: Transfer, run_dir: Path, tracker: Tracker) -> None:
    """Records which arrays were carried over: in `transfer.json` and on the terminal."""
    record = transfer.record()
    file = run_dir / "transfer.json"
    records = read_json(file, list[TransferRecord]) if file.is_file() else []
    write_json(file, [*records, record])
    log_lines(*transfer.lines())
    tracker.log_artifact(file, "config")


def log_config_changes(changes: Changes, step: int, run_dir: Path, tracker: Tracker) -> None:
    """Records what a resume changes: in `resume_changes.json` and on the terminal."""
    if not changes:
        return
    for key, (old, new) in changes.items():
        log_lines(f"changed since the checkpoint: {key}: {old} -> {new}")
    file, _ = record_changes(run_dir, step, changes)
    tracker.log_artifact(file, "config")
