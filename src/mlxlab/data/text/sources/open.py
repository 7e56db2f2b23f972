"""Where text comes from: one word of the user names local files or a data set of the Hugging Face hub."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Literal

from mlxlab.data.input_files import SIGNATURES, suggest_file
from mlxlab.data.text.document import DocumentSource
from mlxlab.data.text.sources.compressed_jsonl import CompressedJsonl
from mlxlab.data.text.sources.csv import CsvFiles
from mlxlab.data.text.sources.error_budget import ErrorBudget, OnError
from mlxlab.data.text.sources.file_set import WILD, FileSet, ending_of, find_files
from mlxlab.data.text.sources.huggingface import open_huggingface
from mlxlab.data.text.sources.parquet import ParquetFiles
from mlxlab.data.text.sources.record_boundaries import LINES, PARAGRAPHS, FixedSizePieces, RecordSplitter
from mlxlab.data.text.sources.record_parsers import RecordParser, json_text, line_text, paragraph_text, plain_text
from mlxlab.data.text.sources.sequential import SequentialSource
from mlxlab.data.text.sources.text_files import TextFiles
from mlxlab.errors import ConfigError, DataError, InputNotFoundError

ENDINGS = (".jsonl.gz", ".jsonl.zst", ".jsonl", ".txt", ".parquet", ".csv")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
DocumentUnit = Literal["file", "paragraph", "line"]
PIECE, SMALLEST = 2**16, 2**12  # bytes of a piece of a text file
PIECES, FEW = 512, 32  # at most so many pieces of fewer small files than this
PART = re.compile(r"(?:train)?\[(?:(\d+(?:\.\d+)?)%)?:(?:(\d+(?:\.\d+)?)%)?\]")
ABOUT = 1024  # bytes of a document, for windows that are measured in bytes


def open_source(
    source: str,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    text_column: str = "text",
    document_unit: DocumentUnit = "file",
    on_error: OnError = "strict",
    window: int = 4000,
) -> DocumentSource:
    """The documents that `source` names; what can be seen without reading everything is checked at once.

    Args:
        source: a file, folder or glob of .txt, .jsonl(.gz, .zst), .parquet or .csv; or owner/name on the hub.
        config: name of a part of a hub data set.
        split: name of a split of a hub data set, "train" if None. Of local .txt and .jsonl files a part, such as
            "[:90%]" or "[90%:]": such parts share no document.
        revision: branch, tag or commit of a hub data set.
        text_column: column, or key of each JSON object, that holds the text.
        document_unit: what a document of a .txt file is: the whole file (given in pieces of 64 KiB), a paragraph
            (blank lines between), or a line. Fewer than 32 small files are given in smaller pieces, of at least
            4 KiB, so that there is something to shuffle and to hold out.
        on_error: whether a malformed record ends the run, or is counted and passed over.
        window: documents that are held in memory and shuffled together, about.

    Raises:
        InputNotFoundError: there is no such file or folder.
        DataError: it holds something else than its name says.
        ServiceUnavailableError: the hub, or a package that reads the format, is not to be had.
    """
    if not is_local(source):
        return open_huggingface(source, config, split or "train", revision, text_column, on_error, window)
    for name, value in {"config": config, "revision": revision}.items():
        if value is not None:
            raise ConfigError(f"data.reading.{name}={value}: only for Hugging Face data sets, not {source}")
    return _open_files(source, text_column, document_unit, on_error, window, _part(split, source))


def _open_files(
    source: str, column: str, document_unit: DocumentUnit, on_error: OnError, window: int, part: tuple[float, float]
) -> DocumentSource:
    shards, tolerance = find_files(source, ENDINGS), ErrorBudget(on_error)
    _refuse_empty(shards, tolerance)
    ending = ending_of(shards.names[0], ENDINGS)
    if ending not in (".txt", ".jsonl") and part != (0, 1):
        raise ConfigError(f"data.reading.split: a part of {source} cannot be taken, only of .txt and .jsonl files")
    match ending:
        case ".parquet":
            return SequentialSource(ParquetFiles(shards, column, tolerance), window)
        case ".jsonl.gz" | ".jsonl.zst":
            return SequentialSource(CompressedJsonl(shards, json_text(column), tolerance, f"json:{column}"), window)
    _refuse_signatures(shards)
    match ending:
        case ".csv":
            return SequentialSource(CsvFiles(shards, column, tolerance), window)
        case ".jsonl":
            read, settings = json_text(column), f"json:{column}"
            return TextFiles(shards, LINES, read, tolerance, settings, window * ABOUT, part)
        case ".txt":
            cut, read, settings = _text(document_unit, shards)
            return TextFiles(shards, cut, read, tolerance, settings, window * ABOUT, part)
    raise InputNotFoundError(f"{shards.name}: expected a file that ends in {', '.join(ENDINGS)}")


def _text(document_unit: DocumentUnit, shards: FileSet) -> tuple[RecordSplitter, RecordParser, str]:
    if document_unit == "paragraph":
        return PARAGRAPHS, paragraph_text, "text:paragraph"
    if document_unit == "line":
        return LINES, line_text, "text:line"
    small = int(shards.sizes.sum()) // PIECES if len(shards) < FEW else PIECE
    piece = min(max(1 << small.bit_length(), SMALLEST), PIECE)
    return FixedSizePieces(piece), plain_text, f"text:file,{piece}"


def _part(split: str | None, source: str) -> tuple[float, float]:
    """The part of all bytes that a split of local files names: `[:90%]`, `[90%:]`, `train` for all."""
    if split in (None, "train"):
        return 0, 1
    if match := PART.fullmatch(split or ""):
        low = float(match[1] or 0) / 100
        high = float(match[2] or 100) / 100
        if 0 <= low < high <= 1:
            return low, high
    raise ConfigError(f"data.reading.split={split}: expected a part of {source} such as [:90%]")


def is_local(source: str) -> bool:
    """Whether `source` names files, rather than a data set of the hub.

    Raises:
        InputNotFoundError: it can be neither.
    """
    if source in ("", "-"):
        raise InputNotFoundError(f"{source!r} is not a file: standard input cannot be read as a data set, give a path")
    if "\0" in source:
        raise InputNotFoundError(f"{source!r}: no path can hold a NUL character")
    path = Path(os.path.expanduser(source))
    if os.path.lexists(path) or any(sign in source for sign in WILD) or ending_of(source, ENDINGS):
        return True
    if HUB_ID.fullmatch(source) and not path.parent.is_dir():
        return False
    raise InputNotFoundError(f"{source}: no such file or folder{suggest_file(path)}, and no owner/name of the hub")


def _refuse_empty(shards: FileSet, tolerance: ErrorBudget) -> None:
    if not shards.sizes.any():
        raise DataError(f"{shards.name}: empty (0 bytes)")
    for index in (shards.sizes == 0).nonzero()[0]:
        tolerance.fault((int(index), "empty"), partial("{}:1: the file is empty (0 bytes)".format, shards.path(index)))


def _refuse_signatures(shards: FileSet) -> None:
    """Looks at the first file that is not empty."""
    index = int((shards.sizes > 0).argmax())
    with shards.open(index) as file:
        head = file.read(4)
    for signature, what in SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(f"{shards.path(index)}:1: this is {what}; expected text in UTF-8")
