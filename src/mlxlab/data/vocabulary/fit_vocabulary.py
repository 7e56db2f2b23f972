"""Chooses the tokens that a model is trained on, by how often they occur in the training text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.token_counts import TokenCounts
from mlxlab.data.vocabulary.vocabulary_map import FILE, VocabularyLimit, VocabularyMap, read_map
from mlxlab.errors import ConfigError
from mlxlab.wording import percent


def fit_vocabulary(
    limit: VocabularyLimit,
    tokenizer: Tokenizer,
    count: Callable[[], TokenCounts],
    restored: Path | None,
) -> tuple[Tokenizer, list[str]]:
    """`tokenizer` with the ids of the most frequent tokens, or as it is without a limit; and lines for the log.

    Args:
        count: counts the tokens of the training text; called for a new run only.
        restored: folder of the run that is resumed or evaluated, with its map.

    Raises:
        ConfigError: the limit does not fit the vocabulary, or is another than that of the run.
        InputNotFoundError, DataError: the map of the run is missing or damaged.
    """
    if restored is not None:
        return _read(limit, tokenizer, restored)
    if not limit.active:
        return tokenizer, []
    counts = count()
    vocabulary = choose(limit, tokenizer, counts)
    share = counts.counts[vocabulary.core_ids].sum() / max(counts.counts.sum(), 1)
    extent = (
        "all of it was counted"
        if counts.exact
        else f"a sample of {counts.counts.sum():,} tokens was counted"
    )
    line = f"{vocabulary} are {percent(share, 2)} of the training text ({extent})"
    line += f"; the others share the id {vocabulary.rare_id}"
    return tokenizer.restricted(vocabulary), [line]


def choose(limit: VocabularyLimit, tokenizer: Tokenizer, counts: TokenCounts) -> VocabularyMap:
    """The special tokens and the most frequent others; of equally frequent ones those with smaller ids.

    Raises ConfigError unless at least two tokens are left to share an id, and one that is not special is kept.
    """
    special = np.array(sorted(tokenizer.special_ids), np.int64)
    frequent = np.argsort(-counts.counts, kind="stable")
    frequent = frequent[~np.isin(frequent, special)]
    total, size = max(int(counts.counts.sum()), 1), limit.size
    if limit.coverage is not None:
        covered = counts.counts[special].sum() + np.concatenate(
            [[0], np.cumsum(counts.counts[frequent])]
        )
        size = len(special) + int(np.argmax(covered / total >= limit.coverage))
    assert size is not None
    max_size = tokenizer.vocab_size - 2
    if not len(special) < size <= max_size:
        got = "" if limit.size is not None else f", got {size}"
        expected = (
            f"expected {len(special) + 1} to {max_size} of the {tokenizer.vocab_size} tokens{got}"
        )
        raise ConfigError(f"{limit}: {expected}; the {len(special)} special ones are always kept")
    core_ids = np.sort(np.concatenate([special, frequent[: size - len(special)]]))
    return VocabularyMap(
        core_ids, tokenizer.vocab_size, tokenizer.fingerprint, limit, counts.counts
    )


def _read(
    limit: VocabularyLimit, tokenizer: Tokenizer, folder: Path
) -> tuple[Tokenizer, list[str]]:
    path = folder / FILE
    if not limit.active and not path.exists():
        return tokenizer, []
    vocabulary = read_map(
        folder, tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.special_ids
    )
    if vocabulary.limit != limit:
        way = "the operation `grow_vocabulary` of callbacks/growth goes back to all tokens"
        raise ConfigError(f"{limit}: the run was started with {vocabulary.limit}; {way}")
    return tokenizer.restricted(vocabulary), [f"{vocabulary}, as saved in {path}"]
