"""The one reader of files: any damage is one DataError, and nothing hangs."""

import base64
import json
from dataclasses import dataclass, field
from typing import Annotated, Literal, NotRequired, TypedDict

import pytest

from mlxlab.errors import DataError
from mlxlab.files.atomic import pack_bytes
from mlxlab.files.untrusted import parse_json, read_json, unpack_bytes
from mlxlab.schema.constraints import Ge, Predicate


class Entry(TypedDict):
    step: Annotated[int, Ge(0)]
    value: float | None
    note: NotRequired[str]


class Document(TypedDict):
    format: Literal["test/1"]
    entries: list[Entry]
    pairs: list[tuple[int, float]]
    table: dict[str, int]


GOOD = {
    "format": "test/1",
    "entries": [{"step": 3, "value": None}],
    "pairs": [[1, 0.5]],
    "table": {"a.b": 2},
}


@dataclass
class Counts:
    steps: Annotated[int, Ge(0)] = 0
    pairs: list[tuple[int, float]] = field(default_factory=list)


def test_an_object_becomes_a_dataclass_whose_fields_are_all_required():
    good = {"steps": 3, "pairs": [[1, 0.5]]}
    assert parse_json(json.dumps(good), Counts, "a.json") == Counts(3, [(1, 0.5)])
    for change, message in (
        ({"steps": -1}, "steps: expected Ge"),
        ({"pairs": 3}, "pairs: expected list"),
        ({"x": 1}, "unknown key 'x'"),
    ):
        with pytest.raises(DataError, match=message):
            parse_json(json.dumps(good | change), Counts, "a.json")
    with pytest.raises(DataError, match="'pairs' is missing"):
        parse_json('{"steps": 3}', Counts, "a.json")


def test_a_predicate_is_described_by_its_docstring():
    def is_even(number: int) -> bool:
        """an even number"""
        return number % 2 == 0

    with pytest.raises(DataError, match=r"^a\.json: expected an even number, got 3$"):
        parse_json("3", Annotated[int, Predicate(is_even)], "a.json")


def test_only_the_keys_that_are_read_are_checked(tmp_path):
    path = tmp_path / "published.json"
    path.write_text('{"a": 1, "b": 1000000000000000019884624838656, "c": [Infinity]}')
    assert read_json(path, dict[str, int], keys=["a", "d"]) == {"a": 1}
    for key in "bc":
        with pytest.raises(DataError):
            read_json(path, dict[str, object], keys=["a", key])


def test_a_document_of_the_right_shape_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    read = read_json(tmp_path / "a.json", Document)
    assert read == GOOD | {"pairs": [(1, 0.5)]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "test/2"}, "format: expected one of 'test/1', got 'test/2'"),
        ({"entries": {}}, "entries: expected list, got {}"),
        (
            {"entries": [{"step": -1, "value": 1.0}]},
            r"entries\[0\]\.step: expected Ge\(ge=0\), got",
        ),
        ({"entries": [{"step": 1}]}, r"entries\[0\]: 'value' is missing"),
        ({"entries": [{"step": 1, "value": 1, "other": 1}]}, r"entries\[0\]: unknown key 'other'"),
        ({"pairs": [[1, 2, 3]]}, r"pairs\[0\]: expected 2 items, got 3"),
        ({"table": {"a": "b"}}, "table.a: expected int, got 'b'"),
        ({"table": {"a": 2**70}}, "64 bits"),
    ],
)
def test_another_shape_is_one_line_with_the_path_to_it(change, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_json(json.dumps(GOOD | change), Document, "a.json")
    assert str(caught.value).startswith("a.json: ")
    assert "\n" not in str(caught.value)


BYTES = bytes(range(100))
DAMAGED = {
    "no base64": "!",
    "no ASCII": "\u00e9",
    "longer": pack_bytes(bytes(101)),
    "shorter": pack_bytes(bytes(99)),
    "a bomb": pack_bytes(bytes(10**6)),
    "truncated": pack_bytes(BYTES)[:-8],
    "with an end": base64.b64encode(base64.b64decode(pack_bytes(BYTES)) + b"x").decode(),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_packed_bytes_are_of_the_expected_size_or_refused_in_one_line(text):
    assert unpack_bytes(pack_bytes(BYTES), 100, "a") == BYTES
    with pytest.raises(DataError, match=r"^a: [^\n]*$"):
        unpack_bytes(text, 100, "a")
