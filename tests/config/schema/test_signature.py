"""The schema is read from the source of a signature, as typing objects."""

import ast
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args

import pytest

from mlxlab.config.instantiate import allowed_targets
from mlxlab.config.schema.signature import Component, Record, read_signature
from mlxlab.config.schema.source import find_statement, read_imports, read_source
from mlxlab.config.schema.validate import Checker, describe
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Count, FilePath, Ge, Lt, MaxLen, MinLen, Seed, Share, Size

SOURCE = '''
    """A module that must never be imported."""
    from __future__ import annotations
    import mlx.nn as nn
    from collections.abc import Callable, Sequence
    from dataclasses import dataclass
    from pathlib import Path
    from typing import Annotated, Literal, NamedTuple, NotRequired, Optional, TypedDict, Unpack

    from mlxlab.schema.constraints import FilePath, Ge, Lt, MaxLen, MinLen, Seed, Share, Size
    from mlxlab import bounds
    from mlxlab.data.labelled.options import LabelledOptions

    raise SystemExit("imported")

    LIMIT = 3
    Mode = Literal["up", "down"]
    Rate = Annotated[float, Ge(0), Lt(10**2)]
    Tree = dict[str, "Tree | int"]
    Deep = list["Mapped"] | int
    Mapped = dict[str, Deep]

    def everything(
        a: int, b: float, c: str, d: bool, e: Path, f: Size, g: Share | None, h: Mode, i: Rate,
        j: list[Mode], k: Annotated[list[Size], MinLen(1), MaxLen(3)], l: dict[str, int | str], m: nn.Module,
        n: Callable[..., int], o: Optional[int], p: "list[int] | None", q: Seed, r: FilePath,
        s: Literal["auto"] | int, t: dict[str, nn.Module], u: int = 3,
        v: Annotated[int, Ge(ge=1)] = 1, w: Annotated[int, Lt(LIMIT), "a comment"] = 1,
        x=1, *, width: int, data: object = None,
    ) -> None: ...

    def limited(
        a: Annotated[int, Ge(1)] | None,
        b: Literal["auto"] | Annotated[list[int], MaxLen(3)] | Annotated[float, Ge(1)],
        c: Optional[Annotated[str, MinLen(1)]],
    ) -> None: ...

    class Deeper(TypedDict):
        op: Literal["deeper"]
        map: list[int]

    class Wider(TypedDict):
        op: Literal["wider"]
        size: Size
        noise: NotRequired[float]

    def grow(first: Wider | None, operations: list[Deeper | Wider]) -> None: ...

    def unreadable(a: unknown(), b: Tree, c: Mapped | None, d: "int |") -> None: ...

    @dataclass(frozen=True)
    class Fields:
        """Fields.

        Args:
            size: how many.
        """

        size: Size
        rate: float = 0.5

    class Pair(NamedTuple):
        left: int
        right: str = ""

    class Options(TypedDict):
        """Options of several classes.

        Args:
            size: how many.
            rate: how fast.
        """

        size: Size
        rate: float

    class Rows:
        """Rows.

        Args:
            name: of the rows,
                over two lines.
            rate: rows: per second.
        """

        def __init__(self, name: str, *, label: int, **options: Unpack[Options]) -> None: ...

    def imported(**options: Unpack[LabelledOptions]) -> None: ...

    def unknown(size: int, **options: Unpack[nn.Options]) -> None: ...
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"signatures_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_type_hints_become_objects_of_typing(module):
    assert read_signature(f"{module}.nn") is None
    signature = read_signature(f"{module}.everything")
    keys = signature.keys
    assert signature.runtime == {"width", "data"}
    assert {name: key.hint for name, key in keys.items()} == {
        "a": int,
        "b": float,
        "c": str,
        "d": bool,
        "e": Path,
        "f": Size,
        "g": Share | None,
        "h": Literal["up", "down"],
        "i": Annotated[float, Ge(0), Lt(100)],
        "j": list[Literal["up", "down"]],
        "k": Annotated[list[Size], MinLen(1), MaxLen(3)],
        "l": dict[str, int | str],
        "m": Component(f"{module}.nn.Module"),
        "n": Callable[..., int],
        "o": int | None,
        "p": list[int] | None,
        "q": Seed,
        "r": FilePath,
        "s": Literal["auto"] | int,
        "t": dict[str, Component(f"{module}.nn.Module")],
        "u": int,
        "v": Annotated[int, Ge(1)],
        "w": Annotated[int, Lt(3), "a comment"],
        "x": object,
    }
    assert [name for name, key in keys.items() if not key.required] == ["u", "v", "w", "x"]


def test_a_bound_in_a_union_is_of_its_option(module):
    target = f"{module}.limited"
    good = {"a": None, "b": [0], "c": None}
    assert list(Checker(good).check_node(good, target)) == []
    bad = {"a": 0, "b": 0.5, "c": ""}
    assert [issue.path for issue in Checker(bad).check_node(bad, target)] == ["a", "b", "c"]


def test_a_type_hint_that_cannot_be_read_allows_any_value(module):
    target = f"{module}.unreadable"
    tree = {"a": 3, "b": {"x": {"y": [1]}}, "c": {"x": [{}, "any"]}, "d": True}
    assert list(Checker(tree).check_node(tree, target)) == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is new in Python 3.12")
def test_a_type_statement_is_an_alias(tmp_path, monkeypatch):
    (tmp_path / "statements.py").write_text("type Width = int\ndef make(width: Width): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_signature("statements.make").keys["width"].hint is int


def test_the_fields_of_unpacked_options_are_keys(module):
    known = read_signature(f"{module}.Rows")
    assert known.runtime == {"label"}
    assert {name: (key.hint, key.required, key.doc) for name, key in known.keys.items()} == {
        "name": (str, True, "of the rows, over two lines."),
        "size": (Size, True, "how many."),
        "rate": (float, True, "rows: per second."),
    }
    fields = read_signature(f"{module}.Fields").keys
    assert {name: key.required for name, key in fields.items()} == {"size": True, "rate": False}
    assert list(read_signature(f"{module}.Pair").keys) == ["left", "right"]
    shared = read_signature(f"{module}.imported").keys
    assert shared["fold"].hint == Count
    assert shared["reading"].hint == Component("mlxlab.data.sources.open.Reading")
    assert shared["fold"].doc == "the fold to validate on, from 0."
    assert list(read_signature(f"{module}.unknown").keys) == ["size"]


def test_a_typed_dict_is_a_record(module):
    wider = Record(f"{module}.Wider")
    keys = read_signature(f"{module}.grow").keys
    assert get_args(keys["first"].hint) == (wider, NoneType)
    [operation] = get_args(keys["operations"].hint)
    assert get_args(operation) == (Record(f"{module}.Deeper"), wider)
    required = {name: key.required for name, key in read_signature(wider.target).keys.items()}
    assert required == {"op": True, "size": True, "noise": False}
    assert describe(wider) == "a mapping with the keys op, size, noise"


DEEPER, WIDER = "a mapping with the keys op, map", "op, size, noise"


@pytest.mark.parametrize(
    ("operation", "issues"),
    [
        ({"op": "wider", "size": 3}, {}),
        ({"op": "wider", "size": 0}, {"operations.0.size": "expected a whole number >= 1, got 0"}),
        ({"op": "widen", "size": 3}, {"operations.0.op": "expected wider, got widen"}),
        ({"size": 3}, {"operations.0.op": "missing; expected wider"}),
        (3, {"operations.0": f"expected {DEEPER} or a mapping with the keys {WIDER}, got 3"}),
    ],
)
def test_the_record_with_the_fewest_faults_is_meant(module, operation, issues):
    tree = {"first": None, "operations": [operation]}
    found = Checker(tree).check_node(tree, f"{module}.grow")
    assert {issue.path: issue.message for issue in found} == issues


def definitions(source):
    """The classes and functions of a module, as a parse of all of it finds them."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {node.name: node for node in ast.parse(source).body if isinstance(node, kinds)}


def test_every_name_has_the_definition_that_a_parse_of_its_whole_module_finds():
    modules = {target.rpartition(".")[0] for target in allowed_targets()}
    for module in modules:
        for name, node in definitions(read_source(module)).items():
            parsed = find_statement(name, module)
            assert parsed is not None, f"{module}.{name}"
            assert ast.dump(parsed) == ast.dump(node), f"{module}.{name}"


ODD_SOURCE = '''
"""A module.

from which nothing is imported
"""
from os import (path,
    sep)
@dataclass(
    frozen=True,
)
class Text:
    value: str = """
from a line that looks like the begin of a statement
"""

class Commented:
    first: int
# a comment
    second: int

class Twice: first: int

class Twice: second: int
limit: int \\
    = 3
'''


def test_definitions_are_found_in_any_layout(tmp_path, monkeypatch):
    (tmp_path / "odd_layout.py").write_text(ODD_SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    names = definitions(ODD_SOURCE)
    assert [*names] == ["Text", "Commented", "Twice"]
    for name, node in names.items():
        assert ast.dump(find_statement(name, "odd_layout")) == ast.dump(node), name
    assert find_statement("limit", "odd_layout").value.value == 3
    assert find_statement("nothing", "odd_layout") is None
    assert read_imports("odd_layout")["sep"] == ("os", "sep")


def test_a_module_that_is_not_python_is_named_with_its_line(tmp_path, monkeypatch):
    name = "no_python.py"
    (tmp_path / name).write_bytes(b"class Data:\n    rate: float = 3:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"{name}: not Python: "):
        find_statement("Data", name.removesuffix(".py"))
