"""Opens a text source by name: local files, or a data set of the Hugging Face hub."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlxlab.data.input_files import describe_binary
from mlxlab.data.text.document import DocumentSource, ErrorBudget, OnError
from mlxlab.data.text.sources.file_set import (
    GLOB_CHARACTERS,
    SUFFIXES,
    FileSet,
    find_files,
    suffix_of,
)
from mlxlab.data.text.sources.huggingface import HubShards, open_huggingface
from mlxlab.data.text.sources.line_files import LineFiles
from mlxlab.data.text.sources.parquet import ParquetFiles
from mlxlab.data.text.sources.records import (
    DocumentUnit,
    RecordFormat,
    json_text,
    split_lines,
    text_format,
)
from mlxlab.data.text.sources.windows import SequentialSource, TextFiles
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.nearest import nearest_path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FRACTION_RANGE = re.compile(r"(?:train)?\[(?:(\d+(?:\.\d+)?)%)?:(?:(\d+(?:\.\d+)?)%)?\]")
MEAN_BYTES = 1024  # of a document, for windows that are measured in bytes


@dataclass(frozen=True)
class Reading:
    """Options for reading sources.

    Args:
        config: configuration name of a Hugging Face data set.
        split: of the source to train on: a split of a Hugging Face data set; of local .txt and .jsonl a part such as
            [:90%]. Adjacent parts share no document.
        revision: branch, tag or commit of a Hugging Face data set.
        document_unit: what a document of a .txt file is: the whole file (in pieces of 64 KiB), a paragraph (between
            blank lines), or a line. Fewer than 32 small files are split into smaller pieces, of at least 4 KiB, so that
            there are enough documents to shuffle and to hold out.
    """

    config: str | None
    split: str | None
    revision: str | None
    document_unit: DocumentUnit


def open_source(
    source: str,
    split: str | None,
    reading: Reading,
    text_column: str,
    on_error: OnError,
    window: int,
) -> DocumentSource:
    """Opens the documents that `source` names, and checks what can be checked without reading everything.

    Args:
        source: a file, folder or glob of .txt, .parquet, .jsonl, .csv or .tsv (also .gz, .zst); or a hub id.
        split: as `Reading.split`, which it replaces; None is "train" on the hub, and all of local files.
        window: approximate number of documents that are held in memory and shuffled together.

    Raises:
        InputNotFoundError: no such file or folder.
        DataError: the content does not match the format.
        ConfigError: an option does not go with this source.
        ServiceUnavailableError: the hub, or a package that reads the format, is unavailable.
    """
    budget = ErrorBudget(on_error)
    if not is_local(source):
        hub_split = open_huggingface(source, reading.config, split or "train", reading.revision)
        return SequentialSource(HubShards(hub_split, text_column, budget), window)
    for name, value in {"config": reading.config, "revision": reading.revision}.items():
        if value is not None:
            raise ConfigError(
                f"data.reading.{name}={value}: only for Hugging Face data sets, not {source}"
            )
    fractions, files = _parse_fractions(split, source), find_files(source)
    suffix = suffix_of(files.names[0])
    check_starts(files, budget, is_text=suffix in (".txt", ".jsonl", ".csv", ".tsv"))
    if suffix not in (".txt", ".jsonl") and fractions != (0, 1):
        raise ConfigError(
            f"data.reading.split: expected a .txt or .jsonl file for a range, got {source}"
        )
    match suffix:
        case ".parquet":
            return SequentialSource(ParquetFiles(files, text_column, budget), window)
        case ".jsonl" | ".txt":
            records = text_format(reading.document_unit, files.sizes)
            if suffix == ".jsonl":
                records = RecordFormat(
                    split_lines, partial(json_text, text_column), f"json:{text_column}"
                )
            return TextFiles(files, records, budget, window * MEAN_BYTES, fractions)
        case str() if suffix:
            return SequentialSource(LineFiles(files, text_column, budget), window)
    raise InputNotFoundError(f"{files.name}: expected a file that ends in {', '.join(SUFFIXES)}")


def _parse_fractions(split: str | None, source: str) -> tuple[float, float]:
    """The range of all bytes that a split of local files names: `[:90%]`, `[90%:]`, `train` for all."""
    if split in (None, "train"):
        return 0, 1
    if match := FRACTION_RANGE.fullmatch(split or ""):
        low, high = float(match[1] or 0) / 100, float(match[2] or 100) / 100
        if 0 <= low < high <= 1:
            return low, high
    raise ConfigError(f"data.reading.split={split}: expected a range of {source} such as [:90%]")


def is_local(source: str) -> bool:
    """True for files, false for a data set of the hub; raises InputNotFoundError for neither."""
    if source in ("", "-") or "\0" in source:
        raise InputNotFoundError(f"{source!r}: expected a path without NUL, and not standard input")
    path = Path(os.path.expanduser(source))
    if (
        os.path.lexists(path)
        or any(sign in source for sign in GLOB_CHARACTERS)
        or suffix_of(source)
    ):
        return True
    if HUB_ID.fullmatch(source) and not path.parent.is_dir():
        return False
    raise InputNotFoundError(
        f"{source}: no such file or folder, and no owner/name of the hub{nearest_path(path)}"
    )


def check_starts(files: FileSet, error_budget: ErrorBudget, is_text: bool) -> None:
    """Skips empty files; raises DataError if all are empty, or text starts as a known binary format."""
    if not files.sizes.any():
        raise DataError(f"{files.name}: empty (0 bytes)")
    for index in (files.sizes == 0).nonzero()[0]:
        error_budget.skip(
            (int(index), "empty"), f"{files.path(index)}:1: the file is empty (0 bytes)"
        )
    first = files.first_nonempty()
    with files.open(first) as file:
        description = describe_binary(file.read(4))
    if is_text and description:
        raise DataError(f"{files.path(first)}:1: this is {description}; expected text in UTF-8")
