"""Counts the conversations of files without a tokenizer, and names the first line that holds none."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from mlxlab.data.instruct.conversations import Layout, find_layout, parse_record
from mlxlab.data.instruct.sources import SUFFIXES
from mlxlab.data.sources.open import is_local
from mlxlab.data.text.document import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet, find_files, suffix_of
from mlxlab.data.text.sources.lines import Lines, codec_of
from mlxlab.data.text.sources.open import check_starts
from mlxlab.data.text.sources.records import json_object
from mlxlab.errors import DataError, UserError

MAX_TRIED = 10  # lines by which a layout is recognised


@dataclass
class ConversationSummary:
    """The conversations of a source.

    Attributes:
        answers: messages of the assistant; `messages` are all. A plain text has none.
        malformed: lines that hold no conversation; `first_fault` names the first, with its file and line.
    """

    name: str
    conversations: int = 0
    messages: int = 0
    answers: int = 0
    malformed: int = 0
    first_fault: str = ""


def has_conversations(source: str) -> bool:
    """Whether local JSON lines hold conversations, by the first line that is an object; plain `text` is none."""
    with suppress(UserError):  # what is missing or unreadable is reported when it is read
        files = find_files(source) if is_local(source) else None
        if files is not None and suffix_of(files.names[0]) in SUFFIXES and files.sizes.any():
            return any(
                map(_is_conversation, islice(_records(files, files.first_nonempty()), MAX_TRIED))
            )
    return False


def summarize(source: str, layout: Layout | None = None) -> ConversationSummary:
    """Reads all conversations of a file, folder or glob.

    Args:
        layout: of the records; None recognises it by their keys.

    Raises:
        InputNotFoundError, DataError: there is no such file, or one of another format or with empty lines only.
    """
    files = find_files(source)
    suffix = suffix_of(files.names[0])
    if suffix not in SUFFIXES:
        raise DataError(
            f"{files.name}: expected conversations in a file that ends in {', '.join(SUFFIXES)}"
        )
    check_starts(files, ErrorBudget("skip"), is_text=suffix == ".jsonl")
    summary = ConversationSummary(files.name)
    for index in range(len(files)):
        for line, record in _records(files, index):
            try:
                if isinstance(record, ValueError):
                    raise record
                conversation = parse_record(record, layout)
            except ValueError as error:
                summary.malformed += 1
                summary.first_fault = summary.first_fault or f"{files.path(index)}:{line}: {error}"
                continue
            if conversation is None:
                continue
            messages = [] if isinstance(conversation, str) else conversation
            summary.conversations += 1
            summary.messages += len(messages)
            summary.answers += sum(message["role"] == "assistant" for message in messages)
    if not summary.conversations + summary.malformed:
        raise DataError(f"{files.name}: contains no conversation, only empty lines")
    return summary


def _is_conversation(numbered: tuple[int, bytes | ValueError]) -> bool:
    _, record = numbered
    with suppress(ValueError):
        row = json_object(record, "") if isinstance(record, bytes) else None
        return row is not None and find_layout(row) != "text"
    return False


def _records(files: FileSet, index: int) -> Iterator[tuple[int, bytes | ValueError]]:
    """The number of each line of a file, with its bytes or the error of one that is too long."""
    with files.open(index) as file:
        lines = Lines(file, codec_of(suffix_of(files.names[index])))
        while True:
            lines.record_bytes = 0
            try:
                yield lines.line + 1, next(lines)
            except StopIteration:
                return
            except ValueError as error:
                yield lines.line, error
            except OSError as error:
                raise DataError(
                    f"{files.path(index)}: after {lines.offset} bytes: {error}"
                ) from None
