"""A causal language model that continues texts: of a run, or a pretrained one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import ConfigError
from mlxlab.inference.generate import GenerationConfig, TextChunk, check_context, check_generates, generate
from mlxlab.inference.restore import RestoredModel, restore_model
from mlxlab.inference.sampling import SamplingParams
from mlxlab.models.model import Model


@dataclass(frozen=True)
class TextGenerator:
    """Continues texts.

    Args:
        start: tokens before the first one of a document, as in training.
        context: context length in tokens that the model was trained with.
    """

    model: Model
    tokenizer: Tokenizer
    start: tuple[int, ...]
    context: int

    def stream(
        self, prompts: Sequence[str], sampling: SamplingParams, request: GenerationConfig
    ) -> Iterator[TextChunk]:
        """Yields chunks of the continuations as they are generated; see `generate`.

        Raises:
            ConfigError: as `generate`; DataError: a prompt has a character that the tokenizer does not know.
        """
        rows = [self.tokens(prompt, request.new_document) for prompt in prompts]
        yield from generate(self.model, self.tokenizer, rows, sampling, self.limited(request))

    def texts(self, prompts: Sequence[str], sampling: SamplingParams, request: GenerationConfig) -> list[str]:
        """The complete continuations."""
        texts = [""] * len(prompts)
        for piece in self.stream(prompts, sampling, request):
            texts[piece.row] += piece.text
        return texts

    def tokens(self, prompt: str, new_document: bool) -> list[int]:
        """Of a prompt that begins a document, or is from the middle of one. Never empty: something must come before."""
        tokens = self.tokenizer.encode(prompt, special=False)
        end = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        found = [*(self.start if new_document else ()), *tokens] or end
        if not found:
            raise ConfigError("an empty prompt: the tokenizer has no token for the end of a document to begin with")
        return found

    def limited(self, request: GenerationConfig) -> GenerationConfig:
        """The request with a context: what was asked for, else what the model was trained on."""
        return replace(request, context_length=check_context(self.model, request.context_length or self.context))


def load_generator(run: Path, checkpoint: Path | None = None) -> TextGenerator:
    """The generator of a run folder (by default its best checkpoint), of a GGUF file, or of a Llama-type folder.

    Raises:
        ConfigError: the model is no causal language model. InputNotFoundError: there is no such run.
    """
    if run.suffix == ".gguf" or ((run / "config.json").is_file() and not (run / "config.yaml").is_file()):
        return _pretrained_generator(run)
    return restored_generator(restore_model(run, checkpoint))


def restored_generator(restored: RestoredModel) -> TextGenerator:
    """The generator of a restored run."""
    check_generates(restored.model)
    encoder = restored.encoder
    assert isinstance(encoder, TextEncoder)
    config = restored.config
    isolated = config["data"]["packing"]["mask_across_documents"]  # then no document has seen the end of another
    end = encoder.tokenizer.eos_id
    longest = restored.model.backbone.max_position_embeddings
    context = longest if config["model"].get("pretrained") else min(encoder.seq_len, longest)
    return TextGenerator(restored.model, encoder.tokenizer, () if isolated or end is None else (end,), context)


def _pretrained_generator(path: Path) -> TextGenerator:
    from mlxlab.models.build import build_pretrained_model
    from mlxlab.models.pretrained.load import gguf_tokenizer

    tokenizer = Tokenizer(gguf_tokenizer(path)) if path.suffix == ".gguf" else load_tokenizer(path)
    model = build_pretrained_model(path, tokenizer.vocab_size)
    check_generates(model)
    return TextGenerator(model, tokenizer, _prefix_tokens(tokenizer), model.backbone.max_position_embeddings)


def _prefix_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before a text."""
    plain, whole = (tokenizer.encode("a", special=special) for special in (False, True))
    return tuple(whole[: whole.index(plain[0])])
