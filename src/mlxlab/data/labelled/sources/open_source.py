"""Opens a source of labelled rows by its name: files, a data set of the hub, or a table of scikit-learn."""

import codecs

from mlxlab.data.labelled.sources.hub_rows import HubRows
from mlxlab.data.labelled.sources.line_rows import LineRows
from mlxlab.data.labelled.sources.parquet_rows import ParquetRows
from mlxlab.data.labelled.sources.sklearn_rows import SklearnRows
from mlxlab.data.labelled.sources.source import RowSource
from mlxlab.data.sources.open import is_local
from mlxlab.data.text.sources.file_set import ROW_SUFFIXES, find_files, suffix_of
from mlxlab.data.text.sources.huggingface import open_huggingface
from mlxlab.errors import ConfigError, DataError

SKLEARN = "sklearn:"
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")


def open_source(
    source: str,
    delimiter: str | None,
    encoding: str | None,
    config: str | None,
    split: str | None,
    revision: str | None,
) -> RowSource:
    """The source of this name, read with these fields of `RowReading`."""
    _check_encoding(encoding)
    is_table = source.startswith(SKLEARN)
    if not is_table and not is_local(source):
        return HubRows(open_huggingface(source, config, split or "train", revision))
    for name, value in {"config": config, "split": split, "revision": revision}.items():
        if value is not None:
            raise ConfigError(
                f"data.reading.{name}={value}: only for Hugging Face data sets, not {source}"
            )
    if is_table:
        return SklearnRows(source.removeprefix(SKLEARN))
    files = find_files(source, ROW_SUFFIXES)
    suffix = suffix_of(files.names[0])
    if suffix not in ROW_SUFFIXES:
        way = (
            "; a spreadsheet program can save it as CSV (UTF-8)"
            if files.name.lower().endswith(SPREADSHEETS)
            else ""
        )
        raise DataError(
            f"{files.name}: expected a file that ends in {', '.join(ROW_SUFFIXES)}{way}"
        )
    if not files.sizes.any():
        raise DataError(f"{files.name}:1: empty (0 bytes)")
    if suffix == ".parquet":
        return ParquetRows(files)
    return LineRows(files, delimiter, encoding)


def _check_encoding(name: str | None) -> None:
    try:
        if name is not None:
            codecs.getincrementaldecoder(name)("strict").decode(b"", True)
            "".encode(name)
    except (LookupError, ValueError, TypeError, AttributeError):
        examples = "utf-8, utf-16, latin-1, cp1252"
        raise ConfigError(
            f"data.reading.encoding={name}: expected the name of an encoding such as {examples}"
        ) from None
