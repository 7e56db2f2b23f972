"""Files of conversations as sources of documents, whose text is the normal form of a conversation."""

from collections.abc import Callable
from dataclasses import dataclass

from mlxlab.data.instruct.conversations import Layout, dump, parse_record
from mlxlab.data.text.document import DocumentSource, ErrorBudget, OnError
from mlxlab.data.text.holdout import hold_out
from mlxlab.data.text.sources.file_set import find_files, suffix_of
from mlxlab.data.text.sources.line_files import LineFiles
from mlxlab.data.text.sources.open import MEAN_BYTES, check_starts
from mlxlab.data.text.sources.records import RecordFormat, split_lines
from mlxlab.data.text.sources.windows import SequentialSource, TextFiles
from mlxlab.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass
class ConversationParser:
    """Parses a line of JSON to the normal form of its conversation; "" for a blank line.

    Args:
        check: raises ValueError for a conversation that cannot be encoded; None until there is a tokenizer.
    """

    layout: Layout | None
    check: Callable[[str], object] | None = None

    def __call__(self, record: bytes) -> str:
        conversation = parse_record(record, self.layout)
        if conversation is None:
            return ""
        text = dump(conversation)
        if self.check is not None:
            self.check(text)
        return text


def open_conversations(
    source: str, parse: ConversationParser, on_error: OnError, window: int
) -> DocumentSource:
    """Opens the conversations of a file, folder or glob of .jsonl, .jsonl.gz or .jsonl.zst.

    Args:
        window: approximate number of conversations that are held in memory and shuffled together.

    Raises:
        InputNotFoundError: no such file or folder.
        DataError: files of another format, or empty ones.
    """
    budget, files = ErrorBudget(on_error), find_files(source)
    suffix = suffix_of(files.names[0])
    if suffix not in SUFFIXES:
        raise DataError(
            f"{files.name}: expected conversations in a file that ends in {', '.join(SUFFIXES)}"
        )
    check_starts(files, budget, is_text=suffix == ".jsonl")
    settings = f"conversations:{parse.layout}"
    if suffix == ".jsonl":
        return TextFiles(
            files, RecordFormat(split_lines, parse, settings), budget, window * MEAN_BYTES, (0, 1)
        )
    return SequentialSource(LineFiles(files, settings, budget, parse), window)


def open_splits(
    source: str,
    valid_source: str | None,
    valid_fraction: float,
    open_source: Callable[[str], DocumentSource],
) -> tuple[DocumentSource, DocumentSource, list[str]]:
    """The conversations to train on and those to validate on, and lines for the log.

    Without `valid_source` a fraction of the training conversations is held out, by a hash of their content: copies of
    one are on the same side.
    """
    train = open_source(source)
    if valid_source is None:
        kept, held_out, line = hold_out(
            train, valid_fraction, key="data.valid_fraction", noun="conversation"
        )
        return kept, held_out, [line]
    valid = open_source(valid_source)
    lines = [f"{valid.name}: conversations for validation"]
    if valid.fingerprint == train.fingerprint:
        lines.append(f"{valid.name}: warning: validation uses the training conversations")
    return train, valid, lines
