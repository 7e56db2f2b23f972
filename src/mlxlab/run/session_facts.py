"""The record of a run before its first step: what its command, its config and its session say."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mlxlab.checkpoint.state import RunMetadata
from mlxlab.data.dataset import DROPPED, SAME_INPUT, RowEncoder
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.distillation.options import read_options
from mlxlab.past_runs.command_lines import CommandLine
from mlxlab.past_runs.training_facts import limit_of, shape_of
from mlxlab.record import run_record as records
from mlxlab.record.run_record import Data, Model, Overlap, Parent, RunRecord, Training
from mlxlab.schema.dotted_keys import value_at

if TYPE_CHECKING:
    from mlxlab.run.session import Session

_MAX_NAMES = 20  # classes and columns that are recorded


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
    session: "Session", metadata: RunMetadata, first: list[str], fork: str | None
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
    from mlxlab.models.model import count_parameters, count_trainable  # It imports MLX.

    record.model.parameters = count_parameters(session.model)
    record.model.trainable = count_trainable(session.model)
    record.model.shape = shape_of(session.architecture.node)
    record.training.batches_per_epoch = session.data.train.batches_per_epoch or 0
    return record


def add_data(facts: Data, session: "Session") -> None:
    """Adds the data set and its task."""
    data = session.data
    task = data.task
    facts.task = task.kind
    facts.masked = task.masked
    facts.fingerprint = data.fingerprint
    facts.tokenizer = tokenizer_kind(data.tokenizer)
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


def tokenizer_kind(tokenizer: Tokenizer) -> str:
    if tokenizer.alphabet is not None:
        return "characters"
    return type(tokenizer.inner.model).__name__


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
    target = str(value_at(config, "data._target_"))
    if not found and not target.startswith("mlxlab.data.labelled."):
        return None
    return found
