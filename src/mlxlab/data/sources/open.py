"""Opens a source by its name: files, a data set of the hub, a table of scikit-learn, rows in memory."""

import codecs
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mlxlab.data.sources.arrow import ArrowFiles, ParquetFiles, Table, TableRows
from mlxlab.data.sources.block import ErrorBudget, Source
from mlxlab.data.sources.csv import Csv
from mlxlab.data.sources.files import GLOB_CHARACTERS, Files, find_files, split_suffix
from mlxlab.data.sources.hub import HuggingFaceRows, open_huggingface
from mlxlab.data.sources.json import Json
from mlxlab.data.sources.sklearn import load_sklearn_table
from mlxlab.data.sources.text_files import TextFiles, TextFormat
from mlxlab.data.sources.txt import DocumentUnit, Txt, piece_bytes
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.nearest import nearest_path

if TYPE_CHECKING:
    import datasets

SKLEARN = "sklearn:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FRACTION_RANGE = re.compile(r"(?:train)?\[(?:(\d+(?:\.\d+)?)%)?:(?:(\d+(?:\.\d+)?)%)?\]")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
ALL = (0.0, 1.0)

Rows: TypeAlias = "str | Table | datasets.Dataset | datasets.IterableDataset"


@dataclass(frozen=True)
class Reading:
    """Options for reading a source.

    Args:
        delimiter: of CSV; null takes the most frequent of comma, semicolon, tab and bar in the header.
        quoting: of CSV: false reads quotes as text; null encloses texts in quotes, and refuses those
            that span several lines of a .tsv.
        encoding: of text files; null is UTF-8, or UTF-16 after its byte order mark.
        document_unit: what a document of a .txt file is: the whole file (in pieces of 64 KiB, of at
            least 4 KiB where there are few small files), a paragraph (between blank lines), or a line.
        config: of a Hugging Face data set.
        split: of a Hugging Face data set; of plain local .txt and .jsonl a range such as [:90%].
            Adjacent ranges share no document.
        revision: branch, tag or commit of a Hugging Face data set.
    """

    delimiter: str | None = None
    quoting: bool | None = None
    encoding: str | None = None
    document_unit: DocumentUnit = "file"
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter.encode()) != 1:
            raise ConfigError(f"data.reading.delimiter={self.delimiter}: expected one character")
        if self.encoding is not None:
            _check_encoding(self.encoding)


DEFAULT = Reading()


def open_source(
    source: Rows, reading: Reading = DEFAULT, errors: ErrorBudget | None = None
) -> Source:
    """Opens rows by a name, or those of a DataFrame, of dicts, or of a Hugging Face data set.

    Raises:
        InputNotFoundError: no such file, folder, table or data set.
        DataError: the content does not match the format.
        ConfigError: an option does not go with this source.
        ServiceUnavailableError: the hub is unavailable.
    """
    if errors is None:
        errors = ErrorBudget()
    if not isinstance(source, str):
        return _open_memory(source)
    if source.startswith(SKLEARN):
        _refuse_options(source, reading, ("config", "split", "revision"))
        return load_sklearn_table(source.removeprefix(SKLEARN))
    if not is_local(source):
        split = reading.split or "train"
        return open_huggingface(source, reading.config, split, reading.revision)
    _refuse_options(source, reading, ("config", "revision"))
    return _open_files(find_files(source), source, reading, errors)


def is_local(source: str) -> bool:
    """True for files, False for a data set of the hub; raises InputNotFoundError for neither."""
    if source in ("", "-") or "\0" in source:
        raise InputNotFoundError(f"{source!r}: expected a path without NUL, and not standard input")
    path = Path(os.path.expanduser(source))
    is_glob = any(sign in source for sign in GLOB_CHARACTERS)
    if is_glob or os.path.lexists(path) or split_suffix(source)[0]:
        return True
    if HUB_ID.fullmatch(source) and not path.parent.is_dir():
        return False
    hint = nearest_path(path)
    raise InputNotFoundError(
        f"{source}: no such file or folder, and no owner/name of the hub{hint}"
    )


def _open_memory(source: "Table | datasets.Dataset | datasets.IterableDataset") -> Source:
    name = type(source).__name__
    if hasattr(source, "select_columns"):
        return HuggingFaceRows(source, name)
    return TableRows(source, name)


def _open_files(files: Files, source: str, reading: Reading, errors: ErrorBudget) -> Source:
    fractions = _parse_fractions(reading.split, source)
    if fractions != ALL and (files.codec or files.format not in (".txt", ".jsonl")):
        raise ConfigError(f"data.reading.split: a range of plain .txt or .jsonl, got {source}")
    match files.format:
        case ".parquet":
            return ParquetFiles(files, errors)
        case ".arrow" | ".feather":
            return ArrowFiles(files, errors)
        case "":
            raise DataError(f"{files.name}: an unknown format{_spreadsheet_hint(files.name)}")
    text_format = _text_format(files, reading)
    return TextFiles(files, text_format, errors, reading.encoding, fractions)


def _text_format(files: Files, reading: Reading) -> TextFormat:
    match files.format:
        case ".csv":
            return Csv(reading.delimiter, reading.quoting)
        case ".tsv":
            return Csv(reading.delimiter or "\t", reading.quoting)
        case ".jsonl":
            return Json(lines=True)
        case ".json":
            return Json(lines=False)
    return Txt(reading.document_unit, piece_bytes(files.sizes))


def _refuse_options(source: str, reading: Reading, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(reading, name)
        if value is not None:
            only = "only for Hugging Face data sets"
            raise ConfigError(f"data.reading.{name}={value}: {only}, not {source}")


def _parse_fractions(split: str | None, source: str) -> tuple[float, float]:
    """The range of all bytes that a split of local files names: `[:90%]`, `train` for all."""
    if split in (None, "train"):
        return ALL
    match = FRACTION_RANGE.fullmatch(split or "")
    if match:
        low = float(match[1] or 0) / 100
        high = float(match[2] or 100) / 100
        if 0 <= low < high <= 1:
            return low, high
    raise ConfigError(f"data.reading.split={split}: expected a range of {source} such as [:90%]")


def _check_encoding(name: str) -> None:
    try:
        codecs.getincrementaldecoder(name)("strict").decode(b"", True)
        "".encode(name)
    except (LookupError, ValueError, TypeError, AttributeError):
        expected = "an encoding such as utf-8, utf-16, latin-1, cp1252"
        raise ConfigError(f"data.reading.encoding={name}: expected {expected}") from None


def _spreadsheet_hint(name: str) -> str:
    if name.lower().endswith(SPREADSHEETS):
        return "; a spreadsheet program can save it as CSV (UTF-8)"
    return ""
