"""A tokenizer with one token for every character of a corpus."""

from dataclasses import dataclass
from typing import Literal

import tokenizers
from tokenizers import decoders, models

from mlxlab.data.tokenizers.fit import (
    Corpus,
    FittedTokenizer,
    add_ends,
    existing_tokenizer,
    sample_texts,
)
from mlxlab.data.tokenizers.tokenizer import SPECIAL
from mlxlab.schema.constraints import Size

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass(frozen=True)
class CharTokenizerTrainer:
    """The four special tokens, then the characters of the corpus in order of their code points.

    Args:
        on_unknown: for a character that is not in the sample: `bytes` encodes it as bytes, which
            adds 256 tokens; `error` ends the run (exit 65).
        train_examples: number of documents to collect characters from.
        path: a tokenizer.json, or a folder with one, to use instead.
    """

    on_unknown: Literal["bytes", "error"]
    train_examples: Size
    path: str | None

    def fit(self, corpus: Corpus) -> FittedTokenizer:
        """Returns an existing tokenizer or a new one, whose size follows from the corpus alone."""
        existing = existing_tokenizer(self.path, corpus.pretrained)
        if existing is not None:
            return existing
        pieces = SPECIAL + sorted(set().union(*sample_texts(corpus.texts, self.train_examples)))
        count = len(pieces) - len(SPECIAL)
        if self.on_unknown == "bytes":
            pieces += BYTES
        vocabulary = {piece: token for token, piece in enumerate(pieces)}
        model = models.BPE(vocabulary, [], byte_fallback=self.on_unknown == "bytes")
        inner = tokenizers.Tokenizer(model)
        inner.add_special_tokens(SPECIAL)
        inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        line = f"tokenizer: {count:,} characters, {len(pieces):,} tokens"
        return FittedTokenizer(add_ends(inner), [line])
