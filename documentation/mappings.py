"""Tables of the mappings that a key takes, such as the operations of `callbacks.growth`."""

from collections.abc import Iterator
from typing import get_args

from documentation.tables import cell, code, table
from mlxlab.config.schema.signature import Key, Record, signature
from mlxlab.config.schema.validate import describe

TAG = "op"  # the key that tells several kinds of mappings apart


def expected(hint: object) -> str:
    """What is expected; mappings have tables of their own."""
    if isinstance(hint, Record):
        return "a mapping, see below"
    if records(hint):
        return (
            "a list of mappings, see below"
            if "list" in str(hint)
            else "a mapping, see below, or null"
        )
    return describe(hint)


def mapping_tables(name: str, hint: object) -> Iterator[str]:
    """Headings and tables of the mappings in a type hint, and of those in their fields."""
    kinds = {record: _keys(record) for record in records(hint)}
    if not kinds:
        return
    first = next(iter(kinds.values()))
    shared = {
        field: key
        for field, key in first.items()
        if all(keys.get(field) == key for keys in kinds.values())
    }
    yield f"### Entries of `{name}`"
    if shared:
        yield table(
            ["key", "expected", "meaning"], [_row(field, key) for field, key in shared.items()]
        )
    if len(kinds) > 1:
        yield table(
            [TAG, "what it does", "further keys"],
            [_kind(record, keys, shared) for record, keys in kinds.items()],
        )
    for field, key in shared.items():
        yield from mapping_tables(f"{name}.{field}", key.hint)


def records(hint: object) -> list[Record]:
    """The kinds of mappings in a type hint."""
    if isinstance(hint, Record):
        return [hint]
    return list(dict.fromkeys(record for inner in get_args(hint) for record in records(inner)))


def _keys(record: Record) -> dict[str, Key]:
    known = signature(record.target)
    return known.keys if known else {}


def _row(field: str, key: Key) -> list[str]:
    return [
        code(field) + ("" if key.required else " (optional)"),
        cell(expected(key.hint)),
        cell(key.doc),
    ]


def _kind(record: Record, keys: dict[str, Key], shared: dict[str, Key]) -> list[str]:
    known = signature(record.target)
    own = [
        f"{name}: {what}; {meaning}"
        for field, key in keys.items()
        if field != TAG and field not in shared
        for name, what, meaning in [_row(field, key)]
    ]
    return [code(describe(keys[TAG].hint)), cell(known.doc if known else ""), "<br>".join(own)]
