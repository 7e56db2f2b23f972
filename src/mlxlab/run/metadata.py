"""What a run records before its first step: in its checkpoints, in the tracker, and in `run.json`."""

import hashlib
import json
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlxlab.backend.ops.native import state as kernels
from mlxlab.checkpoint.state import RunMetadata
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.checkpoint.transfer_report import TransferRecord
from mlxlab.data.dataset import DROPPED, SAME_INPUT, DataModule, RowEncoder
from mlxlab.distillation.options import read_options
from mlxlab.evaluation.parts.data import Config
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.inference.model_signature import row_columns
from mlxlab.models.model import count_parameters, count_trainable
from mlxlab.past_runs.changes import Changes, CommandLine, continuations, record_changes
from mlxlab.past_runs.collect_record import limit_of, shape_of
from mlxlab.record import run_record as records
from mlxlab.record.run_record import Data, Model, Overlap, Parent, RunRecord, Training
from mlxlab.run.resume.policy import Transfer
from mlxlab.run.resume.start import Start
from mlxlab.run.session import Session
from mlxlab.schema.dotted_keys import value_at
from mlxlab.terminal.messages import log_lines
from mlxlab.tracking.tracker import OBJECTIVE, OVERRIDES, Tracker

_MAX_NAMES = 20  # classes and columns that are recorded


def run_metadata(
    session: Session, command: CommandLine, resumed: Checkpoint | None, start: Start
) -> RunMetadata:
    """Metadata that a checkpoint needs to be resumed, verified and compared later."""
    cfg = session.cfg
    data = session.data
    plan = start.plan
    continued = []
    initial_weights = {}
    if session.initial_weights is not None:
        initial_weights[session.initial_weights.source] = session.initial_weights.digest
    if resumed is not None and plan is not None:
        before = resumed.state["metadata"]
        continued = continuations(
            command, before, resumed.step, plan.before.node, start.changes, start.continues
        )
        command = command.after(before["overrides"], before["choices"])
        initial_weights = before["initial_weights"]
    metadata: RunMetadata = {
        "config": cfg,
        "config_hash": hashlib.sha256(json.dumps(cfg, sort_keys=True).encode()).hexdigest(),
        "choices": command.choices,
        "overrides": command.overrides,
        "continued": continued,
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
    sizes = _sizes(data, "training")
    tracker.log_dataset(name, data.fingerprint, training, "training", schema, sizes)
    sizes = _sizes(data, "validation")
    name += " (validation)"
    tracker.log_dataset(name, data.held_out, validation, "validation", schema, sizes)


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
    tracker.log_artifact(record_changes(run_dir, step, changes), "config")


def new_record(cfg: dict[str, Any], command: CommandLine, fork: str | None = None) -> RunRecord:
    """What command and config say of a run.

    Args:
        fork: path of the checkpoint of another run that this one starts from.
    """
    choices = command.choices
    source = value_at(cfg, "data.source")
    rate = value_at(cfg, "trainer.learning_rate")
    size = ""
    # The default size is not that of pretrained weights.
    if any(text.startswith("model/size=") for text in command.overrides):
        size = choices.get("model/size", "")
    adapter = choices.get("model/adapter", "")
    if adapter == "none":
        adapter = ""
    return RunRecord(
        id="",
        name="",
        status="running",
        attempts=[],
        command=records.Command(command.first, command.overrides, choices),
        data=Data(
            name=choices.get("data", ""),
            source=source if isinstance(source, str) else "",
            loss_on=str(value_at(cfg, "data.loss_on") or ""),
            fold=cfg["data"].get("fold"),
            folds=cfg["data"].get("folds"),
        ),
        model=Model(
            name=choices.get("model", ""),
            size=size,
            adapter=adapter,
        ),
        training=Training(
            objective=cfg["objective"],
            limit=limit_of(cfg),
            learning_rate=rate if isinstance(rate, int | float) else 0.0,
        ),
        seed=cfg["seed"],
        code=records.Code(versions=package_versions()),
        config=cfg,
        parents=lineage(cfg, fork),
    )


def session_record(
    session: Session, metadata: RunMetadata, first: list[str], fork: str | None
) -> RunRecord:
    """What command, config and session say of a run before its first step.

    Args:
        metadata: that of its checkpoints: a resume composes nothing of what the run began with.
        first: what was typed by the command that began the run.
    """
    command = CommandLine(metadata["overrides"], metadata["choices"], first)
    record = new_record(session.cfg, command, fork)
    record.command.continued = [
        records.Continuation(**each) for each in metadata.get("continued", [])
    ]
    record.code.kernels = metadata["kernels"]
    add_data(record.data, session)
    record.model.parameters = count_parameters(session.model)
    record.model.trainable = count_trainable(session.model)
    record.model.shape = shape_of(session.architecture.node)
    record.training.batches_per_epoch = session.data.train.batches_per_epoch or 0
    return record


def add_data(facts: Data, session: Session) -> None:
    """Adds the data set and its task."""
    data = session.data
    task = data.task
    facts.task = task.kind
    facts.masked = task.masked
    facts.fingerprint = data.fingerprint
    facts.tokenizer = type(data.tokenizer.inner.model).__name__
    if data.tokenizer.alphabet is not None:
        facts.tokenizer = "characters"
    facts.tokenizer_fingerprint = data.tokenizer.fingerprint
    facts.vocab_size = data.tokenizer.vocab_size
    facts.messages = [*session.messages]
    facts.overlaps = _overlaps(session.cfg, facts.messages)
    if task.kind in ("classification", "multi_label"):
        facts.classes = [*task.labels[:_MAX_NAMES]]
        facts.num_classes = task.num_classes
        if task.kind == "classification" and task.num_classes == 2:
            facts.positive_class = task.labels[task.positive_class]
    encoder = getattr(data, "encoder", None)
    if isinstance(encoder, RowEncoder):
        facts.label = encoder.label_column
        facts.columns = [*encoder.columns[:_MAX_NAMES]]
    facts.estimated = [*getattr(data, "estimated_sizes", ())]
    facts.rows = {**getattr(data, "num_examples", {})}
    facts.left_out_rows = getattr(data, "left_out_rows", 0)
    for split, (documents, tokens) in getattr(data, "text_sizes", {}).items():
        facts.rows[split] = documents
        facts.tokens[split] = tokens
    lengths = getattr(data, "row_lengths", None)
    if lengths is not None:
        facts.measured_rows = lengths.rows
        facts.seq_len = lengths.seq_len
        facts.truncated_rows = lengths.too_long


def lineage(cfg: dict[str, Any], fork: str | None = None) -> list[Parent]:
    """What a run comes from, by its resolved config: a checkpoint, published weights, a run that it repeats, teachers."""
    distillation = read_options(cfg["trainer"].get("distillation"))
    sources = [
        ("checkpoint", fork),
        ("pretrained", cfg["model"].get("pretrained")),
        ("init_from", cfg["model"].get("init_from")),
        ("rerun", cfg.get("rerun")),
        *(("teacher", name) for name in distillation.teachers or []),
    ]
    return [Parent(kind, str(name)) for kind, name in sources if name]


def package_versions() -> dict[str, str]:
    """Versions of the packages on which a bitwise resume depends."""
    return {name: version(name) for name in ("mlxlab", "mlx", "numpy", "tokenizers")}


def _overlaps(config: dict[str, Any], messages: list[str]) -> list[Overlap] | None:
    """The messages on repeated rows; None where nobody looked for them."""
    found = [Overlap(line, line.endswith(DROPPED)) for line in messages if SAME_INPUT in line]
    if not found and not config["data"]["_target_"].startswith("mlxlab.data.labelled."):
        return None
    return found
