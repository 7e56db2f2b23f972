"""The facts of a run, from its session."""

from typing import TYPE_CHECKING

from mlxlab.data.dataset import CountsExamples, HasEncoder, MeasuresText, RowEncoder
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.experiment.manifest import RunFacts
from mlxlab.models.model import count_parameters, count_trainable

if TYPE_CHECKING:
    from mlxlab.experiment.session import Session

_MAX_NAMES = 20  # of classes and columns
_KINDS = {"BPE": "BPE", "WordPiece": "WordPiece", "Unigram": "unigram", "WordLevel": "words"}


def run_facts(session: "Session") -> RunFacts:
    """The facts before the first step."""
    data, task = session.data, session.data.task
    facts = RunFacts(
        task=task.kind,
        masked=task.masked,
        tokenizer=tokenizer_kind(data.tokenizer),
        vocab_size=data.tokenizer.vocab_size,
        parameters=count_parameters(session.model),
        trainable_parameters=count_trainable(session.model),
    )
    if task.kind in ("classification", "multi_label"):
        facts |= {"classes": [*task.labels[:_MAX_NAMES]], "num_classes": task.num_classes}
        if task.kind == "classification" and task.num_classes == 2:
            facts["positive_class"] = task.labels[task.positive_class]
    if isinstance(data, HasEncoder) and isinstance(encoder := data.encoder, RowEncoder):
        facts |= {"label": encoder.label_column, "columns": [*encoder.columns[:_MAX_NAMES]]}
    if isinstance(data, CountsExamples):
        facts["examples"] = {**data.num_examples}
    if isinstance(data, MeasuresText):
        facts |= {"text": {**data.text_sizes}, "estimated": [*data.estimated_sizes]}
    if (batches := data.train.batches_per_epoch) is not None:
        facts["batches_per_epoch"] = batches
    if session.cfg["trainer"]["epochs"] == "auto" and (epochs := session.trainer.length.epochs):
        facts["epochs"] = epochs
    return facts


def tokenizer_kind(tokenizer: Tokenizer) -> str:
    """Such as `byte-level BPE`."""
    if tokenizer.alphabet is not None:
        return "characters"
    model, decoder = (
        type(part).__name__ for part in (tokenizer.inner.model, tokenizer.inner.decoder)
    )
    return f"{'byte-level ' * (decoder == 'ByteLevel')}{_KINDS.get(model, model)}"
