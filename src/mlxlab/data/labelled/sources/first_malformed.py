"""The first malformed row of a source, in the metadata of the table of its rows."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from mlxlab.data.labelled.sources.source import UNIT_BITS, RowSource
from mlxlab.data.text.document import ErrorBudget

KEY = b"first_malformed"


class MalformedRow(NamedTuple):
    """A row that was skipped: its place, and where it stands with the reason, for messages."""

    place: int
    text: str


def to_metadata(errors: ErrorBudget, source: RowSource) -> dict[bytes, str]:
    """The first row that was skipped, without the path of its file, which may be renamed."""
    key = errors.first_key
    if isinstance(key, tuple):
        key = key[0] << UNIT_BITS | (
            key[1] if isinstance(key[1], int) else 1
        )  # no line: an empty file
    if not isinstance(key, int) or not errors.first_error.startswith(path := _path(source, key)):
        return {}
    return {KEY: json.dumps([key, errors.first_error.removeprefix(path)])}


def first_malformed(metadata: Mapping[bytes, bytes], source: RowSource) -> MalformedRow | None:
    """The row of `to_metadata`; None without one, as in files from before there was this key."""
    try:
        place, text = json.loads(metadata[KEY])
        return MalformedRow(place, f"{_path(source, place)}{text}")
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _path(source: RowSource, place: int) -> str:
    return source.location(place).rpartition(":")[0]
