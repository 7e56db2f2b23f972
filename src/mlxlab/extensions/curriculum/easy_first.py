"""Easy documents first: an epoch reads the text in passes, each of which takes the documents of one difficulty."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Count, Ge, Le, Lt
from mlxlab.data import example_losses
from mlxlab.data.batch import check_position
from mlxlab.data.cache import cached, content_key
from mlxlab.data.text.document import Document, DocumentSource, Position, Windows
from mlxlab.data.text.order.data_order import DataOrder
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import parse_json

MAX_DOCUMENTS = (
    1_000_000  # whose length is measured; of a larger corpus the first ones of a random order
)

LevelOf = Callable[[Sequence[Document]], np.ndarray]  # documents -> the level of each, int64


@dataclass(frozen=True)
class EasyFirstOrder(DataOrder):
    """Easy documents first in every epoch; those of one level of difficulty in a random order.

    Args:
        by: length in characters, or loss in an earlier run.
        levels: of difficulty, with about as many documents each; every epoch reads the text once for each of them.
        source: a run folder with per-example losses, or a Parquet file of them, for by=loss. A document without a
            loss counts as one of the middle level.
        measure: log how far the tokens served are from those of the corpus, and how many of its rare tokens were.
    """

    by: Literal["length", "loss"]
    levels: Annotated[int, Ge(2), Le(100)]
    source: str | None
    measure: bool

    def __post_init__(self) -> None:
        if (self.by == "loss") != (self.source is not None):
            expected = (
                "a run folder with per-example losses"
                if self.by == "loss"
                else "null with data.order.by=length"
            )
            raise ConfigError(f"data.order.source={self.source}: expected {expected}")

    def arrange(
        self, text: DocumentSource, limit: int | None, chosen: np.ndarray | None, cache: Path
    ) -> "EasyFirst":
        """The documents by level. InputNotFoundError or DataError if the losses are missing or malformed."""
        if self.source is None:
            limits = self._length_limits(text, cache)
            return EasyFirst(
                text, by_length(limits), self.levels, limit, chosen, f"length {limits.tolist()}"
            )
        rows = example_losses.read(Path(os.path.expanduser(self.source)))
        usable = np.isfinite(rows["mean"])
        if not usable.any():
            raise DataError(
                f"{self.source}: none of its {len(usable):,} rows has a finite loss to order by"
            )
        ids, losses = rows["id"][usable], rows["mean"][usable]
        levels = np.searchsorted(_quantiles(losses, self.levels), losses, side="right")
        digest = content_key(ids=ids.tolist(), levels=levels.tolist())
        return EasyFirst(
            text,
            by_loss(ids, levels, self.levels // 2),
            self.levels,
            limit,
            chosen,
            f"loss {digest}",
        )

    def _length_limits(self, source: DocumentSource, cache: Path) -> np.ndarray:
        def measure() -> list[int]:
            documents = chain.from_iterable(documents for _, documents in source.windows(0, 0))
            lengths = np.array(
                [len(document.text) for document in islice(documents, MAX_DOCUMENTS)]
            )
            return [int(limit) for limit in _quantiles(lengths, self.levels)]

        def decode(data: bytes) -> list[int]:
            limits = parse_json(data.decode("utf-8", "replace"), list[Count], "lengths")
            if len(limits) != self.levels - 1 or limits != sorted(limits):
                raise DataError(f"expected {self.levels - 1} rising lengths")
            return limits

        key = content_key(
            source=source.fingerprint, levels=self.levels, max_documents=MAX_DOCUMENTS
        )
        path = cache / "document_lengths" / f"{key}.json"
        return np.array(
            cached(path, measure, lambda limits: json.dumps(limits).encode(), decode)[0]
        )


def by_length(limits: np.ndarray) -> LevelOf:
    """Levels that begin at lengths above each of `limits`, in characters."""
    return lambda documents: np.searchsorted(
        limits, [len(document.text) for document in documents], side="left"
    )


def by_loss(ids: np.ndarray, levels: np.ndarray, unknown: int) -> LevelOf:
    """The levels of ids, which ascend; `unknown` for others."""

    def level_of(documents: Sequence[Document]) -> np.ndarray:
        document_ids = np.array([document.id for document in documents], np.int64)
        index = np.minimum(np.searchsorted(ids, document_ids), len(ids) - 1)
        return np.where(ids[index] == document_ids, levels[index], unknown)

    return level_of


def _quantiles(values: np.ndarray, levels: int) -> np.ndarray:
    """The values between `levels` parts of equal size, ascending."""
    return np.quantile(values, np.arange(1, levels) / levels, method="lower")


class EasyFirst:
    """A source whose epoch is one pass over another source for each level. Implements `DocumentSource`."""

    def __init__(
        self,
        source: DocumentSource,
        level_of: LevelOf,
        levels: int,
        limit: int | None,
        chosen: np.ndarray | None,
        settings: str,
    ) -> None:
        self.source, self.level_of, self.levels, self.limit, self.chosen = (
            source,
            level_of,
            levels,
            limit,
            chosen,
        )
        self.name, self.bytes, self.error_budgets = source.name, source.bytes, source.error_budgets
        self.fingerprint = f"{source.fingerprint}|easy first in {levels} levels by {settings}"

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. A position is [level, position in the source, documents of the pass before it]."""
        first, window, before = check_position(
            [0, None, 0] if position is None else position,
            tuple[Annotated[int, Ge(0), Lt(self.levels)], object, Count],
        )
        for level in range(first, self.levels):
            for start, documents in self.source.windows(seed, epoch, window):
                documents = self._used(documents, before)
                is_selected = self.level_of(documents) == level
                if is_selected.any():
                    yield (
                        [level, start, before],
                        [documents[index] for index in np.flatnonzero(is_selected)],
                    )
                before += len(documents)
                if self.limit is not None and before >= self.limit:
                    break
            window, before = None, 0

    def _used(self, documents: list[Document], before: int) -> list[Document]:
        """Those that are chosen, within the limit; `before` were used in earlier windows."""
        if self.chosen is not None:
            is_chosen = np.isin([document.id for document in documents], self.chosen)
            documents = [documents[index] for index in np.flatnonzero(is_chosen)]
        return documents if self.limit is None else documents[: self.limit - before]
