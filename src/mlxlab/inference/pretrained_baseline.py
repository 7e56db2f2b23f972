"""A language model as it was published: alone, or in place of that of a run on the same data."""

from dataclasses import replace
from pathlib import Path

from mlxlab.data.text.dataset import TextEncoder
from mlxlab.errors import ConfigError, DataError
from mlxlab.inference.generate import check_generates
from mlxlab.inference.restore import RestoredModel
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.model import Model
from mlxlab.models.pretrained.load import pretrained_tokenizer, resolve

MAX_SEQ_LEN = 1024  # tokens of an evaluated row, unless a length is given


def is_published(path: Path) -> bool:
    """Whether a path is a GGUF file or a folder of published weights, and not that of a run."""
    if path.suffix == ".gguf":
        return True
    return (path / "config.json").is_file() and not (path / "inference").is_dir()


def load_published(path: Path, seq_len: int | None) -> tuple[Model, TextEncoder]:
    """A GGUF file or folder as model and encoder; its rows have 1,024 tokens unless it has fewer.

    Raises:
        ConfigError: it does not predict the next token, or has fewer positions than `seq_len`.
        InputNotFoundError, DataError: it cannot be read.
    """
    resolved = resolve(str(path), "run")
    tokenizer = pretrained_tokenizer(resolved)
    model = build_pretrained_model(resolved, tokenizer.vocab_size)
    check_generates(model)
    limit = model.backbone.position_limit
    if seq_len is not None and limit is not None and seq_len > limit:
        raise ConfigError(f"data.seq_len={seq_len}: the model has positions for {limit}")
    length = seq_len or min(MAX_SEQ_LEN, model.backbone.max_position_embeddings)
    return model, TextEncoder(tokenizer, masked=False, seq_len=length)


def with_pretrained(restored: RestoredModel, name: str) -> RestoredModel:
    """The run with the model of a folder, GGUF file or hub id.

    Raises:
        ConfigError: the run is not that of a language model.
        DataError: the model has another tokenizer, so that a loss per token is of other tokens.
        InputNotFoundError, ServiceUnavailableError: see `resolve`.
    """
    title = f"pretrained={name}"
    encoder = restored.encoder
    if not isinstance(encoder, TextEncoder) or encoder.task.masked:
        expected = "expected the run of a model that predicts the next token of texts"
        raise ConfigError(f"{title}: {expected}")
    path = resolve(name, "pretrained")
    tokenizer = pretrained_tokenizer(path)
    if tokenizer.fingerprint != encoder.tokenizer.fingerprint:
        raise DataError(
            f"{title}: its tokenizer is not that of the run; losses per token cannot be compared"
        )
    return replace(restored, model=build_pretrained_model(path, tokenizer.vocab_size))
