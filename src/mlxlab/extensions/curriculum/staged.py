"""A mixture whose weights change during an epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mlxlab.data.batch import check_position
from mlxlab.data.text.documents import Document, DocumentSource, Position, Windows
from mlxlab.data.text.order import MEAN_CHARACTERS, DataOrder, open_readers
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Ge, Lt, MaxLen, MinLen, NonNegative, Size
from mlxlab.terminal.wording import one_of

KEY = "data.order.stages"
Stage = Annotated[list[float | dict[str, NonNegative]], MinLen(2), MaxLen(2)]


@dataclass(frozen=True)
class StagedOrder(DataOrder):
    """The sources of `data.mixture` by weights that change from stage to stage of an epoch.

    An epoch has a fixed length: a source is read as far as its weights take it, and again in
    another order where that is further than its end.

    Args:
        stages: a list of [start, weights], each holding from its start on: a fraction of the
            epoch, and the weight of each source by its name in `data.mixture`, whose own weights
            are not used; one without a weight has 0.
        epoch_characters: length of an epoch; null is that of all sources together.
    """

    stages: Annotated[list[Stage], MinLen(1)]
    epoch_characters: Size | None

    def __post_init__(self) -> None:
        starts = self.starts
        are_pairs = len(starts) == len(self.stages) and all(
            isinstance(weights, dict) for _, weights in self.stages
        )
        if not are_pairs or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= 1:
            expected = "expected [start, {source: weight}] with starts that rise from 0 to below 1"
            raise ConfigError(f"{KEY}: {expected}, got {self.stages}")

    @property
    def starts(self) -> list[float]:
        return [start for start, _ in self.stages if not isinstance(start, dict)]

    def mix(
        self, sources: Sequence[DocumentSource], weights: Mapping[str, float], window: int
    ) -> "StagedMixture":
        """The sources by stages; raises ConfigError if a stage does not fit them."""
        if len(sources) == 1:
            raise ConfigError(f"{KEY}: expected several sources in data.mixture, got one")
        by_stage = np.array([_stage_weights(stage, list(weights)) for stage in self.stages])
        characters = self.epoch_characters
        if characters is None:
            sizes = [source.bytes for source in sources if source.bytes is not None]
            if len(sizes) < len(sources):
                raise ConfigError(
                    "data.order.epoch_characters: expected a number, as a size is unknown"
                )
            characters = sum(sizes)
        return StagedMixture(sources, np.array(self.starts), by_stage, characters, window)


def _stage_weights(stage: Stage, names: Sequence[str]) -> np.ndarray:
    """(N,) the weights of the sources called `names`, of which the largest is 1."""
    _, by_name = stage
    assert isinstance(by_name, dict)
    for name in by_name:
        if name not in names:
            raise ConfigError(
                f"{KEY}: {name} is no source of data.mixture; expected {one_of(names)}"
            )
    weights = np.array([by_name.get(name, 0.0) for name in names])
    if not weights.any():
        raise ConfigError(f"{KEY}: expected a weight above 0 in each stage")
    return weights / weights.max()  # The sum of large weights could overflow.


class StagedMixture:
    """Several sources whose weights depend on the position. Implements `DocumentSource`.

    Args:
        starts: (S,) of the stages, fractions of the epoch, rising from 0.
        weights: (S, N) of the sources in each stage.
        characters: of an epoch.
        window: approximate number of documents in a window, at 1,024 characters each.
    """

    def __init__(
        self,
        sources: Sequence[DocumentSource],
        starts: np.ndarray,
        weights: np.ndarray,
        characters: int,
        window: int,
    ) -> None:
        self.sources = sources
        self.starts = np.round(starts * characters).astype(np.int64)
        self.shares = weights / weights.sum(axis=1, keepdims=True)
        self.characters = characters
        self.bytes: int | None = characters
        self.window_size = window * MEAN_CHARACTERS
        self.name = " + ".join(source.name for source in sources) + f" in {len(starts)} stages"
        stages = [starts.tolist(), self.shares.tolist(), characters, window]
        self.fingerprint = f"{' + '.join(source.fingerprint for source in sources)}:{stages}"

    @property
    def skipped_records(self) -> int:
        return sum(source.skipped_records for source in self.sources)

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`.

        A position is [characters before it, the `ReaderPosition` of each source].
        """
        start = [0, None] if position is None else position
        done, starts = check_position(
            start, tuple[Annotated[int, Ge(0), Lt(self.characters)], object]
        )
        readers = open_readers(self.sources, seed, epoch, starts)
        ends = [*self.starts[1:].tolist(), self.characters]
        while done < self.characters:
            stage = int(np.searchsorted(self.starts, done, side="right")) - 1
            size = min(self.window_size, ends[stage] - done)
            start = [done, [reader.position for reader in readers]]
            documents: list[Document] = []
            for reader, share in zip(readers, self.shares[stage].tolist(), strict=True):
                wanted = round(size * share)
                if wanted:
                    documents += reader.take(wanted)
            done += size
            if documents:
                yield start, documents
