"""How often each token occurs in the training text."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mlxlab.data.text.packing import EPOCH_START, TokenStream

MAX_TOKENS = 20_000_000  # More are not counted: the first ones in a random order are a sample.


class TokenCounts(NamedTuple):
    """Occurrences of each token, (V,) int64."""

    counts: np.ndarray
    exact: bool  # false: of a sample of the corpus


def count_tokens(stream: TokenStream, vocab_size: int) -> TokenCounts:
    """The counts of the documents of `stream`; a sample does not depend on its seed."""
    if stream.limit is None:  # Otherwise the seed determines which documents there are.
        stream = replace(stream, seed=0)
    counts = np.zeros(vocab_size, np.int64)
    for chunk in stream(0, EPOCH_START):
        if counts.sum() >= MAX_TOKENS:
            return TokenCounts(counts, exact=False)
        tokens = np.concatenate([document.tokens for document in chunk])
        counts += np.bincount(tokens, minlength=vocab_size)
    return TokenCounts(counts, exact=True)
