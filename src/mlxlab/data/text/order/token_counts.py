"""How often each token occurs in the training text: exact for small corpora, of a sample for large ones."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from mlxlab.constraints import Size
from mlxlab.data.cache import cached, content_key
from mlxlab.data.text.token_stream import EPOCH_START, TokenChunk, TokenStream
from mlxlab.errors import DataError
from mlxlab.files.atomic import pack_bytes
from mlxlab.files.untrusted import parse_json, unpack_bytes

MAX_TOKENS = 20_000_000  # that are counted; of a larger corpus the first ones of a random order
MAX_COUNT = 10**15  # of all tokens: sums and shares stay exact in 64 bits


class TokenCounts(NamedTuple):
    """Occurrences of each token, (V,) int64."""

    counts: np.ndarray
    exact: bool  # false: of a sample of the corpus

    @property
    def line(self) -> str:
        """What was counted, for the log."""
        extent = "all of the training text" if self.exact else "a sample of the training text"
        used = f"{np.count_nonzero(self.counts):,} of {len(self.counts):,} tokens of the vocabulary occur"
        return f"token counts: {self.counts.sum():,} tokens ({extent}); {used}"


class _Cached(TypedDict):
    exact: bool
    vocab_size: Size
    counts: str


def corpus_counts(stream: TokenStream, vocab_size: int, tokenizer: str, cache: Path) -> TokenCounts:
    """The cached counts of the documents of `stream`; those of a sample do not depend on its seed.

    Args:
        tokenizer: its fingerprint.
    """
    limited = stream.limit is not None  # then the seed determines which documents there are
    stream = (
        stream
        if limited
        else TokenStream(stream.source, stream.encode, stream.end_id, 0, None, stream.chosen)
    )
    chosen = None if stream.chosen is None else stream.chosen.tolist()
    source, order = stream.source.fingerprint, [stream.seed, stream.limit]
    key = content_key(
        source=source, tokenizer=tokenizer, order=order, chosen=chosen, max_tokens=MAX_TOKENS
    )

    def decode(data: bytes) -> TokenCounts:
        saved = parse_json(data.decode("utf-8", "replace"), _Cached, "token counts")
        if saved["vocab_size"] != vocab_size:
            raise DataError(f"expected counts of {vocab_size} tokens, got {saved['vocab_size']}")
        return TokenCounts(
            decode_counts(saved["counts"], vocab_size, "token counts"), saved["exact"]
        )

    path = cache / "token_counts" / f"{key}.json"
    counts, _ = cached(
        path, lambda: count_tokens(stream(0, EPOCH_START), vocab_size), _encode, decode
    )
    return counts


def count_tokens(
    chunks: Iterable[TokenChunk], vocab_size: int, max_tokens: int = MAX_TOKENS
) -> TokenCounts:
    """The counts of whole chunks until there are `max_tokens` tokens."""
    counts = np.zeros(vocab_size, np.int64)
    for chunk in chunks:
        if counts.sum() >= max_tokens:
            return TokenCounts(counts, exact=False)
        counts += np.bincount(chunk.tokens, minlength=vocab_size)
    return TokenCounts(counts, exact=True)


def encode_counts(counts: np.ndarray) -> str:
    """Counts (V,) as text, exactly; about a byte per token of the vocabulary."""
    planes = (
        counts.astype("<u8").view(np.uint8).reshape(-1, 8).T
    )  # high bytes are mostly 0: together they compress
    return pack_bytes(planes.tobytes())


def decode_counts(text: str, vocab_size: int, name: str) -> np.ndarray:
    """What `encode_counts` made a text of, int64; DataError, naming `name`, if it is anything else."""
    planes = np.frombuffer(unpack_bytes(text, 8 * vocab_size, name), np.uint8).reshape(
        8, vocab_size
    )
    counts = np.ascontiguousarray(planes.T).view("<u8").reshape(-1)
    if counts.max(initial=0) > MAX_COUNT or counts.sum(dtype=np.float64) > MAX_COUNT:
        raise DataError(f"{name}: expected at most {MAX_COUNT} tokens in all")
    return counts.astype(np.int64)


def _encode(counts: TokenCounts) -> bytes:
    content = _Cached(
        exact=counts.exact, vocab_size=len(counts.counts), counts=encode_counts(counts.counts)
    )
    return json.dumps(content).encode()
