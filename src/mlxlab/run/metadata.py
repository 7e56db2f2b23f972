"""Metadata that a run records in its checkpoints and the tracker."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.backend.ops.native import state as kernels
from mlxlab.checkpoint.state import Continuation, RunMetadata
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.checkpoint.transfer_report import TransferRecord
from mlxlab.data.dataset import DataModule, RowEncoder
from mlxlab.evaluation.parts.data import Config
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.inference.model_signature import row_columns
from mlxlab.past_runs.changes import Changes, record_changes
from mlxlab.past_runs.command_lines import CommandLine, continuations
from mlxlab.run.resume.policy import Transfer
from mlxlab.run.session_facts import package_versions
from mlxlab.terminal.messages import log_lines
from mlxlab.tracking.tracker import OBJECTIVE, OVERRIDES, Context, Tracker

if TYPE_CHECKING:
    from mlxlab.run.resume.start import Start
    from mlxlab.run.session import Session


def run_metadata(
    session: "Session", command: CommandLine, resumed: Checkpoint | None, start: "Start"
) -> RunMetadata:
    """Metadata that a checkpoint needs to be resumed, verified and compared later."""
    cfg = session.cfg
    data = session.data
    plan = start.plan
    continued: list[Continuation] = []
    requested: list[str] = []
    initial_weights = {}
    if session.initial_weights is not None:
        initial_weights[session.initial_weights.source] = session.initial_weights.digest
    if resumed is not None and plan is not None:
        before = resumed.state["metadata"]
        requested = [*plan.requested]
        at = (resumed.step, plan.before.node)
        continued = continuations(command, before, at, start.changes, start.continues)
        command = command.after(before["overrides"], before["choices"])
        initial_weights = before["initial_weights"]
    metadata: RunMetadata = {
        "config": cfg,
        "config_hash": hashlib.sha256(json.dumps(cfg, sort_keys=True).encode()).hexdigest(),
        "choices": command.choices,
        "overrides": command.overrides,
        "continued": continued,
        "requested": requested,
        "versions": package_versions(),
        "data": data.fingerprint,
        "held_out": data.held_out,
        "tokenizer": data.tokenizer.fingerprint,
        "teachers": session.teachers.digests,
        "initial_weights": initial_weights,
        "kernels": str(kernels.current()),
        "uid": "",
    }
    epochs = session.trainer.length.epochs
    if cfg["trainer"]["epochs"] == "auto" and epochs:
        metadata["epochs"] = epochs
    return metadata


def run_tags(cfg: Config, command: CommandLine, fork: str | None) -> dict[str, str]:
    tags = {OVERRIDES: shlex.join(command.overrides), OBJECTIVE: cfg["objective"]}
    if fork is not None:
        tags["mlxlab.forked_from"] = fork
    return tags | {str(key): str(value) for key, value in cfg["tags"].items()}


def log_datasets(node: Config, data: DataModule, tracker: Tracker) -> None:
    """Records the training and the validation data, by an address that loads if the config has one."""
    name = node["_target_"].rsplit(".", 1)[-1]
    training = _address(node.get("source")) or data.sources[-1]
    validation = _address(node.get("valid_source")) or training
    schema = ""
    encoder = getattr(data, "encoder", None)
    if isinstance(encoder, RowEncoder):
        schema = row_columns(encoder)
    splits: list[tuple[Context, str, str, str]] = [
        ("training", name, data.fingerprint, training),
        ("validation", f"{name} (validation)", data.held_out, validation),
    ]
    for split, title, digest, source in splits:
        tracker.log_dataset(title, digest, source, split, schema, _sizes(data, split))


def _sizes(data: DataModule, split: str) -> dict[str, int]:
    """Rows, or documents and tokens, as far as the data set knows them."""
    sizes = getattr(data, "text_sizes", {})
    if split in sizes:
        documents, tokens = sizes[split]
        return {"num_documents": documents, "num_tokens": tokens}
    examples = getattr(data, "num_examples", {})
    if split in examples:
        return {"num_rows": examples[split]}
    return {}


def _address(source: object) -> str | None:
    """A file as an absolute path, another address as it is."""
    if not isinstance(source, str):
        return None
    path = Path(source).expanduser()
    if path.exists():
        return str(path.absolute())
    return source


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
    file = record_changes(run_dir, step, changes)
    tracker.log_artifact(file, "config")
