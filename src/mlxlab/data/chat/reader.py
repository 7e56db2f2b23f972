"""Conversations of a source as documents, whose text is their JSON in one spelling."""

from collections.abc import Sequence

from mlxlab.data.chat.conversation import (
    Layout,
    dump,
    parse_conversation,
    unread_keys,
)
from mlxlab.data.sources.block import Block, ErrorBudget
from mlxlab.data.sources.cells import OnBadCell
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.data.text.documents import Documents


def open_conversations(
    source: str, reading: Reading, layout: Layout | None, errors: ErrorBudget, window: int
) -> Documents:
    """The conversations of what `source` names; raises as `open_source`.

    Args:
        layout: of the rows; None recognises it by their columns.
        window: conversations that are held in memory and shuffled together.
    """

    def read_texts(block: Block, on_bad_cell: OnBadCell) -> Sequence[str | None]:
        texts: list[str | None] = []
        for row, record in enumerate(block.records()):
            text = None
            try:
                text = dump(parse_conversation(record, layout))
            except ValueError as error:
                on_bad_cell(row, error)
            texts.append(text)
        return texts

    rows = open_source(source, reading, errors)
    columns = rows.columns()
    read = set(columns).difference(unread_keys(columns))
    sizes = [size for size in map(rows.text_bytes, read) if size is not None]
    return Documents(rows, None, read_texts, window, errors, sum(sizes) or None, f":{layout}")
