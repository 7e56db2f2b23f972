"""Text generation from strings to strings, with the model of a run or a pretrained one."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlxlab.data.text.dataset import TextEncoder
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import DataError
from mlxlab.files.untrusted import read_bytes
from mlxlab.inference.generate import (
    GenerationConfig,
    TextChunk,
    check_context,
    check_generates,
    generate,
)
from mlxlab.inference.pretrained_baseline import is_published, load_published
from mlxlab.inference.restore import RestoredModel, restore_model
from mlxlab.models.model import Model


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
