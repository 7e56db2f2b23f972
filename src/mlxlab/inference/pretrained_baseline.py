"""A language model as it was published, in place of that of a run: what the run began with, on the same data."""

from dataclasses import replace

from mlxlab.data.batch import Task
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.errors import ConfigError, DataError
from mlxlab.inference.restore import RestoredModel
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.pretrained.load import pretrained_tokenizer, resolve


def with_pretrained(restored: RestoredModel, name: str) -> RestoredModel:
    """The run with the model of a folder, GGUF file or hub id.

    Raises:
        ConfigError: the run is not that of a language model, or knows a part of its tokens only.
        DataError: the model has another tokenizer, so that a loss per token is of other tokens.
        InputNotFoundError, ServiceUnavailableError: see `resolve`.
    """
    title, encoder = f"pretrained={name}", restored.encoder
    if not isinstance(encoder, TextEncoder) or encoder.masked:
        expected = "expected the run of a model that predicts the next token of texts"
        raise ConfigError(f"{title}: {expected}, got {_model_of(encoder.task)}")
    if encoder.tokenizer.vocabulary is not None:
        raise ConfigError(
            f"{title}: expected a run with all tokens of its tokenizer (data.vocabulary.size=null)"
        )
    path = resolve(name, "pretrained")
    tokenizer = pretrained_tokenizer(path)
    if tokenizer.fingerprint != encoder.tokenizer.fingerprint:
        raise DataError(
            f"{title}: its tokenizer is not that of the run; losses per token cannot be compared"
        )
    return replace(restored, model=build_pretrained_model(path, tokenizer.vocab_size))


def _model_of(task: Task) -> str:
    if task.masked:
        return "a masked language model"
    return (
        "one of conversations"
        if task.kind == "language_modelling"
        else f"one of {task.kind.replace('_', ' ')}"
    )
