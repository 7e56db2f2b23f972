"""A smaller vocabulary: the tokens that are kept, renumbered, and one id that all others share."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np

from mlxlab.constraints import Ge, Gt, Le, Size
from mlxlab.data.cache import content_key
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import write_json

FILE = "vocabulary_map.json"
FORMAT = "mlxlab.vocabulary/2"
KeptTokens = Annotated[int, Ge(1), Le(1_000_000)]
Coverage = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True)
class VocabularyLimit:
    """Trains on the most frequent tokens of the training text; all others share one id.

    With both null it trains on all tokens.

    Args:
        size: number of tokens that are kept, special ones included; the model has one more.
        coverage: keeps as many as make up this fraction of the training text, instead of `size`.
    """

    size: KeptTokens | None
    coverage: Coverage | None

    def __post_init__(self) -> None:
        if self.size is not None and self.coverage is not None:
            raise ConfigError("data.vocabulary: expected size or coverage, got both")

    @property
    def active(self) -> bool:
        return self.size is not None or self.coverage is not None

    def __str__(self) -> str:
        for name, value in asdict(self).items():
            if value is not None:
                return f"data.vocabulary.{name}={value}"
        return "no data.vocabulary"


class SavedMap(TypedDict):
    """The map in vocabulary_map.json."""

    format: str
    tokenizer: str
    vocab_size: Size
    limit: VocabularyLimit
    core_ids: list[int]


# Arrays of an evaluation batch, like its targets:
IS_CORE = "is_core"  # bool: the original token is one of those that are kept
# float32: nats to choose the original token among those that share the rare id
RARE_COST = "rare_cost"
TARGET_BYTES = "target_bytes"  # float32: of the original token; only where all of them are known


@dataclass(frozen=True, eq=False)
class VocabularyMap:
    """K of the V tokens of a tokenizer as 0 to K - 1, in the order of their ids.

    K, the rare id, is that of all others.

    Args:
        core_ids: (K,) int64, the original ids of 0 to K - 1, ascending.
        vocab_size: V.
        tokenizer: fingerprint of the tokenizer.
        limit: how K was chosen.
        counts: (V,) occurrences in the training text; None in a map that was read.
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
        content = {
            "format": FORMAT,
            "tokenizer": self.tokenizer,
            "vocab_size": self.vocab_size,
            "limit": asdict(self.limit),
            "core_ids": self.core_ids.tolist(),
        }
        write_json(folder / FILE, content, indent=None)
