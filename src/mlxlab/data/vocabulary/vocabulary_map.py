"""A smaller vocabulary: the tokens that are kept, renumbered, and one id that all others share."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np

from mlxlab.constraints import Ge, Gt, Le, Size
from mlxlab.data.cache import content_key
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.atomic import pack_bytes, write_json
from mlxlab.files.untrusted import read_json

FILE, FORMAT = "vocabulary_map.json", "mlxlab.vocabulary/1"


@dataclass(frozen=True)
class VocabularyLimit:
    """Trains on the most frequent tokens of the training text; all others share one id. Both null: on all tokens.

    Args:
        size: number of tokens that are kept, special ones included; the model has one more.
        coverage: keeps as many as make up this fraction of the training text, instead of `size`.
    """

    size: Annotated[int, Ge(1), Le(1_000_000)] | None
    coverage: Annotated[float, Gt(0), Le(1)] | None

    def __post_init__(self) -> None:
        if self.size is not None and self.coverage is not None:
            raise ConfigError("data.vocabulary: expected size or coverage, got both")

    @property
    def active(self) -> bool:
        return self.size is not None or self.coverage is not None

    def __str__(self) -> str:
        if not self.active:
            return "no data.vocabulary"
        name, value = ("size", self.size) if self.size is not None else ("coverage", self.coverage)
        return f"data.vocabulary.{name}={value}"


class _Saved(TypedDict):
    format: str
    tokenizer: str
    vocab_size: Size
    size: Annotated[int, Ge(1), Le(1_000_000)] | None
    coverage: Annotated[float, Gt(0), Le(1)] | None
    core_ids: list[int]


@dataclass(frozen=True, eq=False)
class VocabularyMap:
    """K of the V tokens of a tokenizer as 0 to K - 1, in the order of their ids; K, the rare id, is that of all others.

    Args:
        core_ids: (K,) int64, the original ids of 0 to K - 1, ascending.
        vocab_size: V.
        tokenizer: fingerprint of the tokenizer.
        limit: how K was chosen.
        counts: (V,) occurrences in the training text; None if they are not known, as in a map that was read.
    """

    core_ids: np.ndarray
    vocab_size: int
    tokenizer: str
    limit: VocabularyLimit
    counts: np.ndarray | None = None

    @property
    def rare_id(self) -> int:
        return len(self.core_ids)

    @property
    def size(self) -> int:
        """Ids of the model: K + 1."""
        return len(self.core_ids) + 1

    @property
    def num_rare(self) -> int:
        """Tokens that share the rare id."""
        return self.vocab_size - len(self.core_ids)

    @cached_property
    def forward(self) -> np.ndarray:
        """(V,) int32: the id of each original id."""
        ids = np.full(self.vocab_size, self.rare_id, np.int32)
        ids[self.core_ids] = np.arange(len(self.core_ids))
        return ids

    @cached_property
    def is_core(self) -> np.ndarray:
        """(V,) bool: true for the original ids that are kept."""
        return self.forward < self.rare_id

    @cached_property
    def packed(self) -> str:
        """`is_core` as text: all that determines the map of a tokenizer."""
        return pack_bytes(np.packbits(self.is_core).tobytes())

    @cached_property
    def fingerprint(self) -> str:
        digest = np.packbits(self.is_core).tobytes().hex()
        return content_key(tokenizer=self.tokenizer, vocab_size=self.vocab_size, core=digest)[:16]

    def __str__(self) -> str:
        return f"vocabulary: {len(self.core_ids):,} of {self.vocab_size:,} tokens"

    def restore(self, ids: Iterable[int]) -> list[int]:
        """The original ids; the rare id, which stands for no token, is left out."""
        return [int(self.core_ids[token]) for token in ids if token != self.rare_id]

    def save(self, folder: Path) -> None:
        """Writes vocabulary_map.json."""
        content = {"format": FORMAT, "tokenizer": self.tokenizer, "vocab_size": self.vocab_size}
        limit = {"size": self.limit.size, "coverage": self.limit.coverage}
        write_json(
            folder / FILE, content | limit | {"core_ids": self.core_ids.tolist()}, indent=None
        )


def read_map(
    folder: Path, tokenizer: str, vocab_size: int, special: Iterable[int]
) -> VocabularyMap:
    """The map that `save` wrote.

    Args:
        tokenizer: fingerprint of the tokenizer, which has `vocab_size` tokens and these `special` ones.

    Raises:
        InputNotFoundError: no such file.
        DataError: it is damaged, or of another tokenizer.
    """
    path = folder / FILE
    saved = read_json(path, _Saved)
    if saved["format"] != FORMAT:
        raise DataError(f"{path}: expected format {FORMAT}, got {saved['format'][:40]!r}")
    if (saved["tokenizer"], saved["vocab_size"]) != (tokenizer, vocab_size):
        got = f"{saved['tokenizer'][:16]}, {saved['vocab_size']} tokens"
        raise DataError(
            f"{path}: expected a map of the tokenizer {tokenizer}, {vocab_size} tokens, got one of {got}"
        )
    core_ids, size, coverage = saved["core_ids"], saved["size"], saved["coverage"]
    if not 0 < len(core_ids) < vocab_size - 1:
        raise DataError(f"{path}: expected 1 to {vocab_size - 2} tokens, got {len(core_ids)}")
    if min(core_ids) < 0 or max(core_ids) >= vocab_size or sorted(set(core_ids)) != core_ids:
        raise DataError(f"{path}: expected distinct ids in order, from 0 to {vocab_size - 1}")
    if missing := sorted(set(special) - set(core_ids)):
        raise DataError(f"{path}: expected all special tokens, {missing[0]} is missing")
    if (size is None) == (coverage is None) or size not in (None, len(core_ids)):
        raise DataError(
            f"{path}: expected a size of {len(core_ids)} or a coverage, got {size} and {coverage}"
        )
    return VocabularyMap(
        np.array(core_ids, np.int64), vocab_size, tokenizer, VocabularyLimit(size, coverage)
    )
