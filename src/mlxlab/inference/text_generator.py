"""Text generation from strings to strings, with the model of a run or a published one."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlxlab.data.text.dataset import TextEncoder
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import read_bytes
from mlxlab.inference.generate import (
    GenerationConfig,
    TextChunk,
    check_context,
    check_generates,
    generate,
)
from mlxlab.inference.restore import RestoredModel, restore_model
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.model import Model
from mlxlab.models.pretrained.load import pretrained_tokenizer, resolve

MAX_SEQ_LEN = 1024  # tokens of an evaluated row, unless a length is given


@dataclass(frozen=True)
class TextGenerator:
    """Continues texts."""

    model: Model
    tokenizer: Tokenizer
    start: tuple[int, ...]  # tokens before the first one of a document, as in training
    context: int  # length in tokens that the model was trained with

    def stream(self, prompts: Sequence[str], request: GenerationConfig) -> Iterator[TextChunk]:
        """Yields chunks of the continuations; raises as `generate`, and DataError for a character without a token."""
        rows = [self.tokens(prompt, request.new_document) for prompt in prompts]
        yield from generate(self.model, self.tokenizer, rows, self.limited(request))

    def texts(self, prompts: Sequence[str], request: GenerationConfig) -> list[str]:
        """The complete continuations."""
        texts = [""] * len(prompts)
        for chunk in self.stream(prompts, request):
            texts[chunk.row] += chunk.text
        return texts

    def tokens(self, prompt: str, new_document: bool) -> list[int]:
        """Token ids of a prompt, at least one; `new_document` adds the tokens before the first one of a document."""
        ids = [*(self.start if new_document else ()), *self.tokenizer.encode(prompt, special=False)]
        return ids or [self.tokenizer.end_id]

    def limited(self, request: GenerationConfig) -> GenerationConfig:
        """The request with its context length set, by default to the length used in training."""
        return replace(
            request,
            context_length=check_context(self.model, request.context_length or self.context),
        )


def load_generator(run: Path, checkpoint: str = "best") -> TextGenerator:
    """The generator of a run, GGUF file or Llama-type folder; raises as `restore_model`, and as `check_generates`."""
    if not is_published(run):
        return restored_generator(restore_model(run, checkpoint))
    model, encoder = load_published(run, None)
    tokenizer = encoder.tokenizer
    bare, framed = (tokenizer.encode("a", special=special) for special in (False, True))
    # The special tokens that the tokenizer puts before a text.
    start = tuple(framed[: framed.index(bare[0])])
    return TextGenerator(model, tokenizer, start, model.backbone.max_position_embeddings)


def restored_generator(restored: RestoredModel) -> TextGenerator:
    """The generator of a restored run."""
    check_generates(restored.model)
    encoder = restored.encoder
    config = restored.config
    assert isinstance(encoder, TextEncoder)
    # Conversations have no packing: no attention crosses from one into another.
    packing = config["data"].get("packing")
    # No document was trained with another before it.
    isolated = packing is None or packing["mask_across_documents"]
    end = encoder.tokenizer.eos_id
    limit = restored.model.backbone.max_position_embeddings
    context = limit if config["model"].get("pretrained") else min(encoder.seq_len, limit)
    return TextGenerator(
        restored.model, encoder.tokenizer, () if isolated or end is None else (end,), context
    )


def read_prompts(path: Path) -> list[str]:
    """A prompt per line, or the `prompt` of each object of a `.jsonl` file.

    Raises:
        InputNotFoundError: there is no such file.
        DataError: it cannot be read, or is larger than 16 MB; a line is malformed, or there is none.
    """
    prompts = []
    for number, line in enumerate(read_bytes(Path(os.path.realpath(path))).splitlines(), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                prompts.append(json.loads(text)["prompt"] if path.suffix == ".jsonl" else text)
                prompts[-1].encode()
        except (ValueError, KeyError, TypeError, AttributeError):
            expected = 'expected UTF-8, and in a .jsonl {"prompt": "..."}'
            raise DataError(f"{path}:{number}:1: {expected}") from None
    if not prompts:
        raise DataError(f"{path}:1:1: has no prompt")
    return prompts


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
