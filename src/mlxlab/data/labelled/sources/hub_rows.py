"""Rows of a Hugging Face data set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from mlxlab.data.labelled.sources.cells import cell_text
from mlxlab.data.labelled.sources.source import UNIT_BITS, Chunk, check_names, text_chunk
from mlxlab.data.text.document import ErrorBudget
from mlxlab.data.text.sources.huggingface import HubSplit
from mlxlab.data.text.sources.records import require_columns
from mlxlab.errors import DataError

ToText = Callable[[object], str | None]


class HubRows:
    """Rows of a split. A place is shard << UNIT_BITS | row. Classes are their names."""

    def __init__(self, split: HubSplit) -> None:
        self.split, self.name, self.header, self.fingerprint = (
            split,
            split.name,
            split.name,
            split.fingerprint,
        )

    def location(self, place: int) -> str:
        return f"{self.name}: shard {place >> UNIT_BITS}, row {place % (1 << UNIT_BITS)}"

    def columns(self) -> tuple[str, ...]:
        names = self.split.stream.column_names
        if names is None:
            first = next(self.split.rows(0, 0), None)
            if first is None:
                raise DataError(f"{self.name}: contains no rows")
            names = list(first)
        check_names(names, self.name)
        return tuple(names)

    def chunks(
        self, columns: Sequence[str] | None, errors: ErrorBudget, max_rows: int
    ) -> Iterator[Chunk]:
        every = self.columns()
        names = list(every if columns is None else columns)
        require_columns(self.header, names, every)
        to_text = {name: self._to_text(name) for name in names}
        split, counted = self.split.select(names), 0
        for shard in range(split.num_shards):
            rows: list[list[str | None]] = []
            places: list[int] = []
            numbers: list[int] = []
            for number, example in enumerate(split.rows(shard, 0), 1):
                place, counted = shard << UNIT_BITS | number, counted + 1
                try:
                    rows.append([_cell(example, name, to_text[name]) for name in names])
                    places.append(place)
                    numbers.append(counted)
                except ValueError as error:
                    errors.skip(place, f"{self.location(place)}: {error}")
                if len(rows) >= max_rows:
                    yield text_chunk(
                        dict(zip(names, zip(*rows, strict=True), strict=True)), places, numbers
                    )
                    rows, places, numbers = [], [], []
            if rows:
                yield text_chunk(
                    dict(zip(names, zip(*rows, strict=True), strict=True)), places, numbers
                )

    def _to_text(self, name: str) -> ToText:
        import datasets

        feature = (self.split.stream.features or {}).get(name)
        return (
            partial(_class_name, feature.names)
            if isinstance(feature, datasets.ClassLabel)
            else cell_text
        )


def _cell(example: Mapping[str, object], name: str, to_text: ToText) -> str | None:
    try:
        return to_text(example.get(name))
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from None


def _class_name(names: Sequence[str], value: object) -> str | None:
    """The name of a class; -1 is a row without one."""
    if value is None or value == -1:
        return None
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    raise ValueError(f"{value!r}, expected the number of a class, 0..{len(names) - 1}")
