"""What is known of data, model and training before the first step, from the session of a run."""

from typing import TYPE_CHECKING, Any

from mlxlab.data.dataset import CountsExamples, HasEncoder, MeasuresText, RowEncoder
from mlxlab.data.overlap import DROPPED, SAME_INPUT
from mlxlab.data.row_lengths import MeasuresRows
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.dotted_keys import value_at
from mlxlab.experiment.facts.training_facts import limit_of
from mlxlab.models.model import count_parameters, count_trainable
from mlxlab.record.run_record import Command, Data, Model, Overlap, Training

if TYPE_CHECKING:
    from mlxlab.experiment.session import Session

_MAX_NAMES = 20  # of classes and columns
_KINDS = {"BPE": "BPE", "WordPiece": "WordPiece", "Unigram": "unigram", "WordLevel": "words"}


def data_facts(config: dict[str, Any], session: "Session | None") -> Data:
    """The data set and its task; without a session only what the config says."""
    source = value_at(config, "data.source")
    facts = Data(
        source=source if isinstance(source, str) else "",
        loss_on=str(value_at(config, "data.loss_on") or ""),
        fold=config["data"].get("fold"),
        folds=config["data"].get("folds"),
    )
    if session is None:
        return facts
    data = session.data
    task = data.task
    facts.task = task.kind
    facts.masked = task.masked
    facts.tokenizer = tokenizer_kind(data.tokenizer)
    facts.vocab_size = data.tokenizer.vocab_size
    facts.messages = [*session.messages]
    facts.overlaps = _overlaps(config, facts.messages)
    if task.kind in ("classification", "multi_label"):
        facts.classes = [*task.labels[:_MAX_NAMES]]
        facts.num_classes = task.num_classes
        if task.kind == "classification" and task.num_classes == 2:
            facts.positive_class = task.labels[task.positive_class]
    if isinstance(data, HasEncoder) and isinstance(data.encoder, RowEncoder):
        facts.label = data.encoder.label_column
        facts.columns = [*data.encoder.columns[:_MAX_NAMES]]
    if isinstance(data, MeasuresText):
        facts.estimated = [*data.estimated_sizes]
        for split, (documents, tokens) in data.text_sizes.items():
            facts.rows[split] = documents
            facts.tokens[split] = tokens
    if isinstance(data, CountsExamples) and data.num_examples:
        facts.rows = {**data.num_examples}
    if isinstance(data, MeasuresRows):
        lengths = data.row_lengths
        facts.left_out_rows = lengths.left_out
        if lengths.seq_len > 1:  # A row of numbers has no length.
            facts.measured_rows = lengths.rows
            facts.seq_len = lengths.seq_len
            facts.truncated_rows = lengths.too_long
    return facts


def model_facts(command: Command, session: "Session | None") -> Model:
    """The model and its options. A size that was not typed is not that of pretrained weights."""
    choices = command.choices
    has_size = any(text.startswith("model/size=") for text in command.overrides)
    adapter = choices.get("model/adapter", "none")
    facts = Model(
        name=choices.get("model", ""),
        size=choices.get("model/size", "") if has_size else "",
        adapter="" if adapter == "none" else adapter,
    )
    if session is not None:
        facts.parameters = count_parameters(session.model)
        facts.trainable = count_trainable(session.model)
    return facts


def training_before(config: dict[str, Any], session: "Session | None") -> Training:
    """What is known before the first step."""
    batches = session.data.train.batches_per_epoch if session else None
    rate = value_at(config, "trainer.learning_rate")
    return Training(
        objective=config["objective"],
        limit=limit_of(config),
        learning_rate=rate if isinstance(rate, int | float) else 0.0,
        batches_per_epoch=batches or 0,
    )


def tokenizer_kind(tokenizer: Tokenizer) -> str:
    """Such as `byte-level BPE`."""
    if tokenizer.alphabet is not None:
        return "characters"
    model, decoder = (
        type(part).__name__ for part in (tokenizer.inner.model, tokenizer.inner.decoder)
    )
    return f"{'byte-level ' * (decoder == 'ByteLevel')}{_KINDS.get(model, model)}"


def _overlaps(config: dict[str, Any], messages: list[str]) -> list[Overlap] | None:
    """The messages on repeated rows; None where nobody looked for them."""
    found = [Overlap(line, line.endswith(DROPPED)) for line in messages if SAME_INPUT in line]
    target = str(value_at(config, "data._target_"))
    if not found and not target.startswith("mlxlab.data.labelled."):
        return None
    return found
