"""Chooses the tokens that a model is trained on, by how often they occur in the training text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlxlab.data.text.token_counts import TokenCounts
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.vocabulary_map import (
    FILE,
    FORMAT,
    SavedMap,
    VocabularyLimit,
    VocabularyMap,
)
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import read_json
from mlxlab.wording import percent


def fit_vocabulary(
    limit: VocabularyLimit,
    tokenizer: Tokenizer,
    count: Callable[[], TokenCounts],
    restored: Path | None,
) -> tuple[Tokenizer, list[str]]:
    """`tokenizer` with the ids of the most frequent tokens, or as it is; and lines for the log.

    Args:
        count: counts the tokens of the training text; called for a new run only.
        restored: folder of the run that is resumed or evaluated, with its map.

    Raises:
        ConfigError: the limit does not fit the vocabulary, or is another than that of the run.
        InputNotFoundError, DataError: the map of the run is missing or damaged.
    """
    has_map = restored is not None and (restored / FILE).exists()
    if not limit.active and not has_map:
        return tokenizer, []
    if restored is not None:
        vocabulary = read_map(restored, tokenizer)
        if vocabulary.limit != limit:
            raise ConfigError(f"{limit}: the run was started with {vocabulary.limit}")
        line = f"{vocabulary}, as saved in {restored / FILE}"
    else:
        counts, is_exact = count()
        vocabulary = choose(limit, tokenizer, counts)
        share = percent(counts[vocabulary.core_ids].sum() / max(counts.sum(), 1), 2)
        text = "the training text" if is_exact else "a sample of the training text"
        line = f"{vocabulary} are {share} of {text}"
    return tokenizer.restricted(vocabulary), [line]


def choose(limit: VocabularyLimit, tokenizer: Tokenizer, counts: np.ndarray) -> VocabularyMap:
    """The special tokens and the most frequent others; of equally frequent ones the smaller ids.

    At least two tokens must be left to share an id, and one that is not special be kept.

    Args:
        counts: (V,) occurrences of the tokens.
    """
    special = np.array(sorted(tokenizer.special_ids), np.int64)
    frequent = np.argsort(-counts, kind="stable")
    frequent = frequent[~np.isin(frequent, special)]
    size = limit.size or 0
    if limit.coverage is not None:
        covered = counts[special].sum() + np.cumsum(np.append(0, counts[frequent]))
        is_enough = covered / max(counts.sum(), 1) >= limit.coverage
        size = len(special) + int(np.argmax(is_enough))
    maximum = tokenizer.vocab_size - 2
    if not len(special) < size <= maximum:
        expected = f"expected {len(special) + 1} to {maximum} of {tokenizer.vocab_size} tokens"
        raise ConfigError(f"{limit}: {expected}, got {size} with {len(special)} special ones")
    core_ids = np.sort(np.append(special, frequent[: size - len(special)]))
    return VocabularyMap(core_ids, tokenizer.vocab_size, tokenizer.fingerprint, limit, counts)


def read_map(folder: Path, tokenizer: Tokenizer) -> VocabularyMap:
    """The map that `save` wrote for a tokenizer.

    Raises:
        InputNotFoundError: no such file.
        DataError: it is damaged, or of another tokenizer.
    """
    path = folder / FILE
    saved = read_json(path, SavedMap)
    if saved["format"] != FORMAT:
        raise DataError(f"{path}: expected format {FORMAT}, got {saved['format'][:40]!r}")
    vocab_size = tokenizer.vocab_size
    if (saved["tokenizer"], saved["vocab_size"]) != (tokenizer.fingerprint, vocab_size):
        raise DataError(f"{path}: expected a map of the tokenizer {tokenizer.fingerprint}")
    core_ids = saved["core_ids"]
    kept = set(core_ids)
    # At least two tokens share the rare id.
    has_room = len(kept) <= vocab_size - 2 and kept <= set(range(vocab_size))
    if core_ids != sorted(kept) or not has_room or not tokenizer.special_ids <= kept:
        expected = f"at most {vocab_size - 2} distinct ids in order, with all special tokens"
        raise DataError(f"{path}: expected {expected}")
    ids = np.array(core_ids, np.int64)
    return VocabularyMap(ids, vocab_size, tokenizer.fingerprint, saved["limit"])
