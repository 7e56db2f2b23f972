"""Easy documents first: an epoch reads the text in passes, one for each level of difficulty."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Count, Ge, Le, Lt
from mlxlab.data.batch import check_position
from mlxlab.data.cache import cached_json, content_key
from mlxlab.data.text.documents import Document, DocumentSource, Position, Windows
from mlxlab.data.text.order import DataOrder
from mlxlab.data.text.packing import ids_of, select_documents
from mlxlab.errors import ConfigError, DataError
from mlxlab.extensions.example_losses import files

MAX_DOCUMENTS = 1_000_000  # Of a larger corpus the first ones of a random order are measured.


@dataclass(frozen=True)
class EasyFirstOrder(DataOrder):
    """Easy documents first in every epoch; those of one level of difficulty in a random order.

    Args:
        by: length in characters, or loss in an earlier run.
        levels: of difficulty, with about as many documents each; every epoch reads the text once
            for each of them.
        source: a run folder with per-example losses, or a Parquet file of them, for by=loss. A
            document without a loss counts as one of the middle level.
    """

    by: Literal["length", "loss"]
    levels: Annotated[int, Ge(2), Le(100)]
    source: str | None

    def __post_init__(self) -> None:
        if (self.by == "loss") != (self.source is not None):
            raise ConfigError(f"data.order: expected a source for by=loss only, got {self}")

    def arrange(
        self, text: DocumentSource, limit: int | None, chosen: np.ndarray | None, cache: Path
    ) -> "EasyFirst":
        """The documents by level.

        Raises InputNotFoundError or DataError if the losses are missing or malformed.
        """
        if self.source is None:
            difficulty = self._by_length(text, cache)
        else:
            difficulty = self._by_loss(self.source)
        return EasyFirst(text, difficulty, limit, chosen)

    def _by_loss(self, source: str) -> "Difficulty":
        ids, losses = files.read_finite(source, "mean")
        levels = np.searchsorted(_quantiles(losses, self.levels), losses, side="right")
        digest = content_key(ids=ids.tolist(), levels=levels.tolist())
        level_of = partial(levels_by_loss, ids, levels, self.levels // 2)
        return Difficulty(level_of, self.levels, f"loss {digest}")

    def _by_length(self, source: DocumentSource, cache: Path) -> "Difficulty":
        key = content_key(
            source=source.fingerprint, levels=self.levels, max_documents=MAX_DOCUMENTS, format=2
        )

        def measure() -> list[int]:
            documents = chain.from_iterable(documents for _, documents in source.windows(0, 0))
            lengths = [len(document.text) for document in islice(documents, MAX_DOCUMENTS)]
            return _quantiles(np.array(lengths), self.levels).astype(int).tolist()

        def check(limits: list[int]) -> None:
            if len(limits) != self.levels - 1 or limits != sorted(limits):
                raise DataError(f"expected {self.levels - 1} rising lengths")

        path = cache / "document_lengths" / f"{key}.json"
        limits, _ = cached_json(path, list[Count], measure, check)
        level_of = partial(levels_by_length, limits)
        return Difficulty(level_of, self.levels, f"length {limits}")


@dataclass(frozen=True)
class Difficulty:
    """A level from 0 to `levels` - 1 for each document."""

    level_of: Callable[[Sequence[Document]], np.ndarray]
    levels: int
    settings: str  # all that the levels depend on


def levels_by_length(limits: list[int], documents: Sequence[Document]) -> np.ndarray:
    """Levels that begin at lengths above each of `limits`, in characters."""
    return np.searchsorted(limits, [len(document.text) for document in documents])


def levels_by_loss(
    ids: np.ndarray, levels: np.ndarray, unknown: int, documents: Sequence[Document]
) -> np.ndarray:
    """The levels of ids, which ascend; `unknown` for others."""
    document_ids = ids_of(documents)
    index = np.minimum(np.searchsorted(ids, document_ids), len(ids) - 1)
    return np.where(ids[index] == document_ids, levels[index], unknown)


def _quantiles(values: np.ndarray, levels: int) -> np.ndarray:
    """The values between `levels` parts of equal size, ascending."""
    return np.quantile(values, np.arange(1, levels) / levels, method="lower")


@dataclass
class EasyFirst:
    """A source that reads another one once for each level. Implements `DocumentSource`."""

    source: DocumentSource
    difficulty: Difficulty
    limit: int | None
    chosen: np.ndarray | None

    def __post_init__(self) -> None:
        self.name = self.source.name
        self.bytes = self.source.bytes
        order = f"easy first in {self.difficulty.levels} levels by {self.difficulty.settings}"
        self.fingerprint = f"{self.source.fingerprint}|{order}"

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`.

        A position is [level, position in the source, documents of the pass before it].
        """
        levels = self.difficulty.levels
        start = [0, None, 0] if position is None else position
        first, window, before = check_position(
            start, tuple[Annotated[int, Ge(0), Lt(levels)], object, Count]
        )
        for level in range(first, levels):
            for window_start, documents in self.source.windows(seed, epoch, window):
                documents = select_documents(documents, self.chosen, self.limit, before)
                selected = np.flatnonzero(self.difficulty.level_of(documents) == level)
                if len(selected):
                    position = [level, window_start, before]
                    yield position, [documents[index] for index in selected]
                before += len(documents)
                if self.limit is not None and before >= self.limit:
                    break
            window, before = None, 0
