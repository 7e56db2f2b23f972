"""How often each token occurs in the training text."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mlxlab.data.text.packing import EPOCH_START, TokenizedDocument, TokenStream

MAX_TOKENS = 20_000_000  # More are not counted: the first ones in a random order are a sample.
MAX_COUNT = 10**15  # Sums and shares of counts stay exact in 64 bits.
RARE_SHARE = 0.01  # The rarest tokens that make up at most this share of the corpus are rare.


class TokenCounts(NamedTuple):
    """Occurrences of each token, (V,) int64."""

    counts: np.ndarray
    exact: bool  # false: of a sample of the corpus


def corpus_counts(stream: TokenStream, vocab_size: int) -> TokenCounts:
    """The counts of the documents of `stream`; a sample does not depend on its seed."""
    if stream.limit is None:  # With a limit the seed determines which documents there are.
        stream = replace(stream, seed=0)
    return count_tokens(stream(0, EPOCH_START), vocab_size)


def count_tokens(
    chunks: Iterable[list[TokenizedDocument]], vocab_size: int, max_tokens: int = MAX_TOKENS
) -> TokenCounts:
    """The counts of whole chunks until there are `max_tokens` tokens."""
    counts = np.zeros(vocab_size, np.int64)
    for chunk in chunks:
        if counts.sum() >= max_tokens:
            return TokenCounts(counts, exact=False)
        tokens = np.concatenate([document.tokens for document in chunk])
        counts += np.bincount(tokens, minlength=vocab_size)
    return TokenCounts(counts, exact=True)


def rare_tokens(counts: np.ndarray) -> np.ndarray:
    """Ids of the rarest tokens that occur and make up at most 1 % of all; at least one."""
    used = np.flatnonzero(counts)
    rarest_first = used[np.argsort(counts[used], kind="stable")]
    total = np.cumsum(counts[rarest_first])
    number = int(np.searchsorted(total, RARE_SHARE * counts.sum(), side="right"))
    return np.sort(rarest_first[: max(number, 1)])
