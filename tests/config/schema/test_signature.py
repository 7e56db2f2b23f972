"""The schema is read from the source of a signature, and allows what the type hints say."""

import textwrap

import pytest

from mlxlab.config.schema import signature, types
from mlxlab.config.schema.types import BOOLEAN, NULL, Component, ListOf, Literal, Mapping, Number, Text, Union
from mlxlab.config.schema.validate import Validator
from mlxlab.config.suggest import nearest

SOURCE = '''
    """A module that must never be imported."""
    from __future__ import annotations
    import mlx.nn as nn
    from collections.abc import Callable, Sequence
    from dataclasses import KW_ONLY, dataclass
    from pathlib import Path
    from typing import Annotated, Literal, NamedTuple, Optional

    from mlxlab.constraints import FilePath, Ge, Lt, MaxLen, MinLen, Seed, Share, Size
    from mlxlab import bounds

    raise SystemExit("imported")

    Mode = Literal["up", "down"]
    Rate = Annotated[float, Ge(0), Lt(10**2)]

    def everything(
        a: int, b: float, c: str, d: bool, e: Path, f: Size, g: Share | None, h: Mode, i: Rate,
        j: list[Mode], k: Annotated[list[Size], MinLen(1), MaxLen(3)], l: dict[str, int | str], m: nn.Module,
        n: Callable[..., int], o: Optional[int], p: "list[int] | None", q: Seed, r: FilePath,
        s: Literal["auto"] | int, t: dict[str, nn.Module], u: int = 3, *, width: int, data: object = None,
    ) -> None:
        """Does everything.

        Args:
            a: the first, in metres,
                over two lines.
            b: another: with a colon.
        """

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
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"signatures_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_every_type_hint_becomes_a_kind_of_value(module):
    size = Number(True, (("Ge", 1), ("Le", 10**12)))
    keys = signature.signature(f"{module}.everything").keys
    assert {name: key.kind for name, key in keys.items()} == {
        "a": Number(True),
        "b": Number(False),
        "c": Text(),
        "d": BOOLEAN,
        "e": Text(),
        "f": size,
        "g": Union((Number(False, (("Ge", 0), ("Lt", 1))), NULL)),
        "h": Literal(("up", "down")),
        "i": Number(False, (("Ge", 0), ("Lt", 100))),
        "j": ListOf(Literal(("up", "down"))),
        "k": ListOf(size, 1, 3),
        "l": Mapping(Union((Number(True), Text()))),
        "m": Component("Module"),
        "n": Component("n"),
        "o": Union((Number(True), NULL)),
        "p": Union((ListOf(Number(True)), NULL)),
        "q": Number(True, (("Ge", 0), ("Lt", 2**64))),
        "r": Text(file=True),
        "s": Union((Literal(("auto",)), Number(True))),
        "t": Mapping(Component("Module")),
        "u": Number(True),
    }
    assert [name for name, key in keys.items() if not key.required] == ["u"]


def test_parameters_after_the_star_are_run_time_arguments(module):
    assert signature.signature(f"{module}.everything").runtime == {"width", "data"}
    assert signature.signature(f"{module}.Sized").runtime == {"label"}
    assert list(signature.signature(f"{module}.Sized").keys) == ["size"]
    assert signature.signature(f"{module}.Fields").runtime == {"label"}


def test_keys_are_documented_by_the_docstring(module):
    known = signature.signature(f"{module}.everything")
    assert known.doc == "Does everything."
    assert known.keys["a"].doc == "the first, in metres, over two lines."
    assert known.keys["b"].doc == "another: with a colon."
    assert signature.signature(f"{module}.Fields").keys["size"].doc == "how many."


def test_classes_without_init_have_the_keys_of_their_fields(module):
    assert signature.signature(f"{module}.Plain").keys == {}
    assert {n: k.required for n, k in signature.signature(f"{module}.Fields").keys.items()} == {
        "size": True,
        "rate": False,
    }
    assert list(signature.signature(f"{module}.Pair").keys) == ["left", "right"]


def test_only_top_level_definitions_of_a_module_have_a_signature(module):
    for name in ("nn", "Size", "Mode", "Sized.size", "nothing", ""):
        assert signature.signature(f"{module}.{name}") is None
    assert signature.signature("nowhere.to.be.found") is None


GOOD = [
    (Number(True), 3),
    (Number(False), 3),
    (Number(False), 0.5),
    (Union((Number(True), NULL)), None),
    (Union((Literal(("auto",)), Number(True))), "auto"),
    (Union((Literal(("auto",)), Number(True))), 3),
    (Literal((1, 2)), 1),
    (ListOf(Number(True), 1, 2), [1, 2]),
    (Mapping(Text()), {"a": "b"}),
    (BOOLEAN, False),
    (Text(file=True), "not/there.csv"),
]
BAD = [
    (Number(True), True),
    (Number(True), 3.0),
    (Number(False), "3"),
    (Number(False), float("nan")),
    (Number(False), float("inf")),
    (Number(False, (("Gt", 0),)), 0),
    (Number(False, (("Lt", 1),)), 1),
    (Literal((1, 2)), True),
    (Literal((1, 2)), 1.0),
    (ListOf(Number(True), 1), []),
    (ListOf(Number(True), 0, 2), [1, 2, 3]),
    (ListOf(Number(True)), 3),
    (ListOf(Text()), "abc"),
    (Mapping(Text()), {"a": 1}),
    (Mapping(Text()), ["a"]),
    (BOOLEAN, 1),
    (BOOLEAN, "true"),
    (NULL, 0),
    (Text(), None),
    (Text(), "a\0b"),
    (Text(file=True), "/"),
    (Text(file=True), "-"),
    (Text(file=True), ""),
    (Component("Loss"), "cross_entropy"),
    (Component("Loss"), {"a": 1}),
]


@pytest.mark.parametrize(("kind", "value"), GOOD)
def test_a_value_of_its_kind_is_valid(kind, value):
    assert list(Validator().value(kind, value, "key")) == []


@pytest.mark.parametrize(("kind", "value"), BAD)
def test_a_value_of_another_kind_is_one_issue_that_names_the_expected_kind(kind, value):
    [issue] = Validator().value(kind, value, "key")
    assert issue.path.startswith("key")
    assert "expected" in issue.message or "choose one with" in issue.message


def test_descriptions_of_kinds():
    assert types.describe(Number(True, (("Ge", 1), ("Le", 10**12)))) == "a whole number >= 1"
    assert types.describe(Union((Number(False, (("Ge", 0), ("Lt", 1))), NULL))) == "a number >= 0 and < 1 or null"
    assert types.describe(ListOf(Literal(("a", "b")), 1)) == "a list with at least 1 item: one of a, b"
    assert types.describe(ListOf(Number(False), 2, 2)) == "a list of exactly 2: a number"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "learning_rate"),
        ("lrr", "learning_rate"),
        ("epoch", "epochs"),
        ("learnig_rate", "learning_rate"),
        ("bs", "batch_size"),
        ("xyz", None),
        ("q", None),
    ],
)
def test_the_nearest_name_is_a_typing_error_or_an_abbreviation(typed, meant):
    assert nearest(typed, ["learning_rate", "log_every", "epochs", "batch_size", "label_smoothing"]) == meant
