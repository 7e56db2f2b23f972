"""The schema is read from the source of a signature, as typing objects."""

import ast
import sys
import textwrap
from types import NoneType
from typing import Annotated, Literal, get_args

import pytest

from mlxlab.config.instantiate import allowed_targets
from mlxlab.config.schema.signature import Component, Record, signature
from mlxlab.config.schema.source import _bindings, definition, source_file
from mlxlab.config.schema.validate import Validator, describe
from mlxlab.constraints import Count, FilePath, Ge, Lt, MaxLen, MinLen, Seed, Share, Size
from mlxlab.errors import ConfigError

SOURCE = '''
    """A module that must never be imported."""
    from __future__ import annotations
    import mlx.nn as nn
    from collections.abc import Callable, Sequence
    from dataclasses import KW_ONLY, dataclass
    from pathlib import Path
    from typing import Annotated, Literal, NamedTuple, NotRequired, Optional, TypedDict, Unpack

    from mlxlab.constraints import FilePath, Ge, Lt, MaxLen, MinLen, Seed, Share, Size
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
    ) -> None:
        """Does everything.

        Args:
            a: the first, in metres,
                over two lines.
            b: another: with a colon.
        """

    def limited(
        a: Annotated[int | None, Ge(1)],
        b: Annotated[Literal["auto"] | list[int] | float, Ge(1), MaxLen(3)],
        c: Optional[Annotated[str, MinLen(1)]],
        d: Annotated[Path, Ge(1)],
    ) -> None: ...

    class Deeper(TypedDict):
        op: Literal["deeper"]
        map: list[int]

    class Wider(TypedDict):
        op: Literal["wider"]
        size: Size
        noise: NotRequired[float]

    def grow(first: Wider | None, operations: list[Deeper | Wider]) -> None: ...

    def unreadable(a: Literal[Color.RED], b: Tree, c: Mapped | None, d: "int |", e: dict[str]) -> None: ...

    class Plain:
        """A plain one."""

    class Sized:
        """Sized from a size."""

        def __init__(self, size: Size, *, label: int) -> None:
            self.size = size

    @dataclass(frozen=True)
    class Fields:
        """Fields.

        Args:
            size: how many.
        """

        size: Size
        rate: float = 0.5
        _: KW_ONLY
        label: int

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
            name: of the rows.
            rate: rows per second.
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
    keys = signature(f"{module}.everything").keys
    assert {name: key.hint for name, key in keys.items()} == {
        "a": int,
        "b": float,
        "c": str,
        "d": bool,
        "e": str,
        "f": Size,
        "g": Share | None,
        "h": Literal["up", "down"],
        "i": Annotated[float, Ge(0), Lt(100)],
        "j": list[Literal["up", "down"]],
        "k": Annotated[list[Size], MinLen(1), MaxLen(3)],
        "l": dict[str, int | str],
        "m": Component("Module"),
        "n": Component("n"),
        "o": int | None,
        "p": list[int] | None,
        "q": Seed,
        "r": FilePath,
        "s": Literal["auto"] | int,
        "t": dict[str, Component("Module")],
        "u": int,
        "v": Annotated[int, Ge(1)],
        "w": int,
        "x": object,
    }
    assert [name for name, key in keys.items() if not key.required] == ["u", "v", "w", "x"]


def test_a_bound_of_a_union_is_one_of_those_options_that_can_keep_it(module):
    assert {name: key.hint for name, key in signature(f"{module}.limited").keys.items()} == {
        "a": Annotated[int, Ge(1)] | None,
        "b": Literal["auto"] | Annotated[list[int], MaxLen(3)] | Annotated[float, Ge(1)],
        "c": Annotated[str, MinLen(1)] | None,
        "d": str,
    }


def test_a_type_hint_that_cannot_be_read_allows_any_value(module):
    hints = [key.hint for key in signature(f"{module}.unreadable").keys.values()]
    assert hints == [object] * 5


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is new in Python 3.12")
def test_a_type_statement_is_an_alias(tmp_path, monkeypatch):
    (tmp_path / "statements.py").write_text("type Width = int\ndef make(width: Width): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert signature("statements.make").keys["width"].hint is int


def test_parameters_after_the_star_are_run_time_arguments(module):
    assert signature(f"{module}.everything").runtime == {"width", "data"}
    assert signature(f"{module}.Sized").runtime == {"label"}
    assert list(signature(f"{module}.Sized").keys) == ["size"]
    assert signature(f"{module}.Fields").runtime == {"label"}


def test_keys_are_documented_by_the_docstring(module):
    known = signature(f"{module}.everything")
    assert known.doc == "Does everything."
    assert known.keys["a"].doc == "the first, in metres, over two lines."
    assert known.keys["b"].doc == "another: with a colon."
    assert signature(f"{module}.Fields").keys["size"].doc == "how many."


def test_classes_without_init_have_the_keys_of_their_fields(module):
    assert signature(f"{module}.Plain").keys == {}
    assert {n: k.required for n, k in signature(f"{module}.Fields").keys.items()} == {
        "size": True,
        "rate": False,
    }
    assert list(signature(f"{module}.Pair").keys) == ["left", "right"]


def test_the_fields_of_unpacked_options_are_keys(module):
    known = signature(f"{module}.Rows")
    assert known.runtime == {"label"}
    assert {name: (key.hint, key.required, key.doc) for name, key in known.keys.items()} == {
        "name": (str, True, "of the rows."),
        "size": (Size, True, "how many."),
        "rate": (float, True, "rows per second."),
    }
    shared = signature(f"{module}.imported").keys
    assert shared["fold"].hint == Count
    assert shared["reading"].hint == Component("Reading")
    assert shared["fold"].doc == "the fold to validate on, from 0."
    assert list(signature(f"{module}.unknown").keys) == ["size"]


def test_a_typed_dict_is_a_record(module):
    wider = Record(f"{module}.Wider")
    keys = signature(f"{module}.grow").keys
    assert get_args(keys["first"].hint) == (wider, NoneType)
    [operation] = get_args(keys["operations"].hint)
    assert get_args(operation) == (Record(f"{module}.Deeper"), wider)
    assert {name: key.required for name, key in signature(wider.target).keys.items()} == {
        "op": True,
        "size": True,
        "noise": False,
    }
    assert describe(wider) == "a mapping with the keys op, size, noise"


DEEPER = "a mapping with the keys op, map"


@pytest.mark.parametrize(
    ("operation", "issues"),
    [
        ({"op": "wider", "size": 3}, {}),
        ({"op": "wider", "size": 0}, {"operations.0.size": "expected a whole number >= 1, got 0"}),
        (
            {"op": "wider", "sise": 3},
            {
                "operations.0.sise": "unknown key; did you mean operations.0.size?",
                "operations.0.size": "missing; expected a whole number >= 1",
            },
        ),
        (
            {"op": "widen", "size": 3},
            {"operations.0.op": "expected one of deeper, wider, got widen"},
        ),
        ({"size": 3}, {"operations.0.op": "missing; expected one of deeper, wider"}),
        (
            3,
            {
                "operations.0": f"expected {DEEPER} or a mapping with the keys op, size, noise, got 3"
            },
        ),
    ],
)
def test_the_tag_of_a_mapping_chooses_its_record(module, operation, issues):
    found = Validator().node({"first": None, "operations": [operation]}, f"{module}.grow")
    assert {issue.path: issue.message for issue in found} == issues


def test_only_top_level_definitions_of_a_module_have_a_signature(module):
    for name in ("nn", "Size", "Mode", "Sized.size", "nothing", ""):
        assert signature(f"{module}.{name}") is None
    assert signature("nowhere.to.be.found") is None


def test_every_name_has_the_definition_that_a_parse_of_its_whole_module_finds():
    for module in {target.rpartition(".")[0] for target in allowed_targets()} | {
        "mlxlab.constraints"
    }:
        for name, node in _bindings(source_file(module).read_text()).items():
            parsed = definition(name, module)
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
    names = _bindings(ODD_SOURCE)
    assert [*names] == ["path", "sep", "Text", "Commented", "Twice", "limit"]
    for name, node in names.items():
        assert ast.dump(definition(name, "odd_layout")) == ast.dump(node), name
    assert definition("nothing", "odd_layout") is None


def test_a_comment_may_hold_bytes_that_are_not_utf_8(tmp_path, monkeypatch):
    source = b"# \xff\nimport ast\n\n\ndef first(rate: float): ...  # caf\xe9\n\nclass Second:\n    '''A \xc3\xa9.'''\n"
    (tmp_path / "latin_comment.py").write_bytes(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert definition("first", "latin_comment").name == "first"
    assert ast.get_docstring(definition("Second", "latin_comment")) == "A \xe9."
    assert isinstance(definition("ast", "latin_comment"), ast.Import)


@pytest.mark.parametrize(
    "source", [b"class Data:\n    rate: float = 3:\n", b"class Data:\n    '\xff'\n"]
)
def test_a_module_that_is_not_python_is_named_with_its_line(source, tmp_path, monkeypatch):
    (tmp_path / (name := f"no_python_{len(source)}.py")).write_bytes(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"{name}:2: not Python: "):
        definition("Data", name.removesuffix(".py"))
