"""The tables that the scikit-learn package carries."""

import importlib.metadata
from collections.abc import Iterator, Sequence
from functools import cached_property

from mlxlab.data.labelled.sources.source import Chunk, text_chunk
from mlxlab.data.text.document import ErrorBudget
from mlxlab.data.text.sources.records import require_columns
from mlxlab.errors import InputNotFoundError

TABLES = ("breast_cancer", "diabetes", "digits", "iris", "wine")
LABEL = "target"


class SklearnRows:
    """Rows of a table. The label column is `target`: the name of the class, or the number of a regression."""

    def __init__(self, table: str) -> None:
        if table not in TABLES:
            raise InputNotFoundError(f"sklearn:{table}: expected one of {', '.join(TABLES)}")
        self.table, self.name = table, f"sklearn:{table}"
        self.header = self.name
        self.fingerprint = f"{self.name}@{importlib.metadata.version('scikit-learn')}"

    def location(self, place: int) -> str:
        return f"{self.name}: row {place}"

    def columns(self) -> tuple[str, ...]:
        return tuple(self._cells)

    def chunks(
        self, columns: Sequence[str] | None, errors: ErrorBudget, max_rows: int
    ) -> Iterator[Chunk]:
        names = self.columns() if columns is None else columns
        require_columns(self.header, names, self._cells)
        count = len(self._cells[LABEL])
        for start in range(0, count, max_rows):
            end = min(start + max_rows, count)
            numbers = list(range(start + 1, end + 1))
            yield text_chunk(
                {name: self._cells[name][start:end] for name in names}, numbers, numbers
            )

    @cached_property
    def _cells(self) -> dict[str, list[str]]:
        from sklearn import datasets

        # Raw measurements rather than the standardised ones of diabetes.
        options = {"scaled": False} if self.table == "diabetes" else {}
        bunch = getattr(datasets, f"load_{self.table}")(**options)
        cells = {
            name: [str(value) for value in bunch.data[:, n]]
            for n, name in enumerate(bunch.feature_names)
        }
        names = bunch.get("target_names")
        cells[LABEL] = [str(value if names is None else names[value]) for value in bunch.target]
        return cells
