"""Opens a source by its name: files, a data set of the hub, a table of scikit-learn, rows in memory."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mlxlab.data.sources.arrow import ParquetFiles, TableRows
from mlxlab.data.sources.block import ErrorBudget, Source
from mlxlab.data.sources.files import FORMATS, Files, find_files, is_glob, split_suffix
from mlxlab.data.sources.hub import HuggingFaceRows, open_huggingface
from mlxlab.data.sources.parsers import DocumentUnit, csv_format, json_format, txt_format
from mlxlab.data.sources.text_files import ALL, TextFiles
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.schema.constraints import MaxLen, MinLen
from mlxlab.terminal.nearest import nearest_path

SKLEARN = "sklearn:"
SKLEARN_TABLES = ("breast_cancer", "diabetes", "digits", "iris", "wine")
SKLEARN_LABEL = "target"  # the name of the class, or the number of a regression
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FRACTION_RANGE = re.compile(r"(?:train)?\[(?:(\d+(?:\.\d+)?)%)?:(?:(\d+(?:\.\d+)?)%)?\]")


@dataclass(frozen=True)
class Reading:
    """Options for reading a source.

    Args:
        delimiter: of CSV; null takes the most frequent of comma, semicolon, tab and bar in the header.
        quoting: of CSV: false reads quotes as text; null encloses texts in quotes, and refuses those
            that span several lines of a .tsv.
        encoding: of text files; null is UTF-8, or UTF-16 after its byte order mark.
        document_unit: what a document of a .txt file is: the whole file (in pieces of 64 KiB, of at
            least 4 KiB where there are few small files), or a line.
        missing: of labelled rows: cells that count as missing besides empty ones, such as [NA, "?"].
        config: of a Hugging Face data set.
        split: of a Hugging Face data set; of plain local .txt and .jsonl a range such as [:90%].
            Adjacent ranges share no document.
        revision: branch, tag or commit of a Hugging Face data set.
    """

    delimiter: Annotated[str, MinLen(1), MaxLen(1)] | None = None
    quoting: bool | None = None
    encoding: str | None = None
    document_unit: DocumentUnit = "file"
    missing: Sequence[str] = ()
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, ValueError):
            expected = f"expected utf-8, utf-16, cp1252 or another encoding, got {self.encoding}"
            raise ConfigError(f"data.reading.encoding: {expected}") from None


DEFAULT = Reading()


def open_source(
    source: Any, reading: Reading = DEFAULT, errors: ErrorBudget | None = None
) -> Source:
    """Opens rows by a name, or those of a Hugging Face data set or of what `TableRows` takes.

    Raises:
        InputNotFoundError: no such file, folder, table or data set.
        DataError: the content does not match the format.
        ConfigError: an option does not go with this source.
        ServiceUnavailableError: the hub is unavailable.
    """
    if not isinstance(source, str):
        name = type(source).__name__
        if isinstance(source, TableRows):
            return source
        is_hub = hasattr(source, "select_columns")
        return HuggingFaceRows(source, name) if is_hub else TableRows(source, name)
    is_table = source.startswith(SKLEARN)
    if not is_table and not is_local(source):
        split = reading.split or "train"
        return open_huggingface(source, reading.config, split, reading.revision)
    for key in ("config", "revision"):
        value = getattr(reading, key)
        if value is not None:
            only = f"only for Hugging Face data sets, not {source}"
            raise ConfigError(f"data.reading.{key}={value}: {only}")
    if is_table:
        rows: Source = _load_sklearn_table(source)
    else:
        rows = _open_files(find_files(source), reading, errors or ErrorBudget())
    if _parse_fractions(reading.split) != ALL and not isinstance(rows, TextFiles):
        raise ConfigError(f"data.reading.split: a range of plain .txt or .jsonl, got {source}")
    return rows


def is_local(source: str) -> bool:
    """True for files, False for a data set of the hub; raises InputNotFoundError for neither."""
    if source in ("", "-") or "\0" in source:
        raise InputNotFoundError(f"{source!r}: expected a path without NUL, and not standard input")
    path = Path(os.path.expanduser(source))
    if is_glob(source) or os.path.lexists(path) or split_suffix(source)[0]:
        return True
    if HUB_ID.fullmatch(source) and not path.parent.is_dir():
        return False
    missing = "no such file or folder, and no owner/name of the hub"
    raise InputNotFoundError(f"{source}: {missing}{nearest_path(path)}")


def _open_files(files: Files, reading: Reading, errors: ErrorBudget) -> Source:
    for index, size in enumerate(files.sizes):
        if not size:
            raise DataError(f"{files.path(index)}:1: the file is empty (0 bytes)")
    match files.format:
        case ".parquet":
            return ParquetFiles(files)
        case ".csv":
            text_format = csv_format(reading.delimiter, reading.quoting)
        case ".tsv":
            text_format = csv_format(reading.delimiter or "\t", reading.quoting)
        case ".jsonl" | ".json":
            text_format = json_format(files.format == ".jsonl")
        case ".txt":
            text_format = txt_format(reading.document_unit, files.sizes)
        case _:
            raise DataError(f"{files.name}: expected one of the formats {', '.join(FORMATS)}")
    fractions = _parse_fractions(reading.split)
    return TextFiles(files, text_format, errors, reading.encoding, fractions)


def _load_sklearn_table(name: str) -> TableRows:
    """The rows of `sklearn:TABLE`, which the scikit-learn package carries; raises InputNotFoundError for another table."""
    from sklearn import datasets

    table = name.removeprefix(SKLEARN)
    if table not in SKLEARN_TABLES:
        raise InputNotFoundError(f"{name}: expected one of {', '.join(SKLEARN_TABLES)}")
    # Raw measurements rather than the standardised ones of diabetes.
    options = {"scaled": False} if table == "diabetes" else {}
    bunch = getattr(datasets, f"load_{table}")(as_frame=True, **options)
    rows = bunch.data.rename(columns=str)
    classes = bunch.get("target_names")
    rows[SKLEARN_LABEL] = bunch.target if classes is None else classes[bunch.target].astype(str)
    return TableRows(rows, name)


def _parse_fractions(split: str | None) -> tuple[float, float]:
    """The range of all bytes that a split of local files names: `[:90%]`, `train` for all."""
    if split in (None, "train"):
        return ALL
    match = FRACTION_RANGE.fullmatch(split or "")
    if match:
        low = float(match[1] or 0) / 100
        high = float(match[2] or 100) / 100
        if 0 <= low < high <= 1:
            return low, high
    raise ConfigError(f"data.reading.split={split}: expected a range of bytes such as [:90%]")
