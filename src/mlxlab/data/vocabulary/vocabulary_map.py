"""A smaller vocabulary: the tokens that are kept, renumbered, and one id that all others share."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import numpy as np

from mlxlab.constraints import Ge, Gt, Le, Size
from mlxlab.data.cache import content_key
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.wording import percent

if TYPE_CHECKING:
    from mlxlab.data.text.token_counts import TokenCounts
    from mlxlab.data.tokenizers.tokenizer import Tokenizer

FILE = "vocabulary_map.json"
FORMAT = "mlxlab.vocabulary/1"
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


class _Saved(TypedDict):
    format: str
    tokenizer: str
    vocab_size: Size
    size: KeptTokens | None
    coverage: Coverage | None
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
        content = {"format": FORMAT, "tokenizer": self.tokenizer, "vocab_size": self.vocab_size}
        content |= asdict(self.limit) | {"core_ids": self.core_ids.tolist()}
        write_json(folder / FILE, content, indent=None)


def fit_vocabulary(
    limit: VocabularyLimit,
    tokenizer: "Tokenizer",
    count: Callable[[], "TokenCounts"],
    restored: Path | None,
) -> "tuple[Tokenizer, list[str]]":
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


def choose(limit: VocabularyLimit, tokenizer: "Tokenizer", counts: np.ndarray) -> VocabularyMap:
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


def read_map(folder: Path, tokenizer: "Tokenizer") -> VocabularyMap:
    """The map that `save` wrote for a tokenizer.

    Raises:
        InputNotFoundError: no such file.
        DataError: it is damaged, or of another tokenizer.
    """
    path = folder / FILE
    saved = read_json(path, _Saved)
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
    limit = VocabularyLimit(saved["size"], saved["coverage"])
    return VocabularyMap(np.array(core_ids, np.int64), vocab_size, tokenizer.fingerprint, limit)
