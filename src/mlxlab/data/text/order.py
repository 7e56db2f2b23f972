"""The interface of `data/order`, and its default: documents in a random order."""

from collections.abc import Callable, Mapping, Sequence

from mlxlab.data.dataset import MIN_STEPS
from mlxlab.data.text.batches import RowOrder
from mlxlab.data.text.corpus import Mixture
from mlxlab.data.text.documents import DocumentSource
from mlxlab.data.text.packing import RowLayout
from mlxlab.data.text.token_counts import TokenCounts


class DataOrder:
    """A random order of documents and rows, another one in each epoch.

    Subclasses override what they arrange; the rest is random.

    Attributes:
        min_steps: optimizer steps of a run with `trainer.epochs=auto`, if its epochs are short.
    """

    min_steps = MIN_STEPS

    def mix(
        self, sources: Sequence[DocumentSource], weights: Mapping[str, float], window: int
    ) -> DocumentSource:
        """One source of all, whose names and weights are those of `data.mixture`.

        Raises ConfigError if the order does not fit them.
        """
        return Mixture(sources, list(weights.values()), window) if len(sources) > 1 else sources[0]

    def rows_per_epoch(self, rows: int) -> int:
        """How many of `rows` rows of text are served."""
        return rows

    def identity(self) -> dict[str, object]:
        """What the rows depend on apart from the text, as JSON for the fingerprint of the data."""
        return {}

    def arrange_rows(
        self,
        count_tokens: Callable[[], TokenCounts],
        layout: RowLayout,
        row_buffer: int,
        seed: int,
        steps: int | None,
    ) -> RowOrder:
        """The order of packed rows in a run of `steps`, None if that is unknown.

        Args:
            count_tokens: counts the tokens of the training text.
        """
        return RowOrder(row_buffer, seed)
