"""Claims (`claims.toml`), the values measured for them (`measured.json`), and how both must agree."""

import operator
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, read_json, read_text, validate

ROOT = Path(__file__).resolve().parents[2]
DECLARED, RECORDED = (Path(__file__).with_name(name) for name in ("claims.toml", "measured.json"))
PAGE = ROOT / "docs" / "explanation" / "claims.md"
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
}


class Claim(TypedDict):
    """A claim of the documentation.

    `text` stands in the file `page`, with a format field for each value. The groups of `patterns`, each searched in the
    output of `command`, are the values, multiplied by `scale`; without patterns the seconds that the command takes are.
    `bound` holds for every value, or lists one for each, separated by commas. `title` says what the values are where
    the text, a row of a table, does not.
    """

    id: str
    topic: str
    page: str
    title: NotRequired[str]
    text: str
    command: str
    patterns: list[str]
    scale: NotRequired[float]
    unit: str
    bound: str


class OlderClaim(TypedDict):
    """A claim of an older program, what is known of it, and the claims of this ledger that take its place."""

    program: str
    text: str
    basis: Literal["measured", "claimed", "computed"]
    finding: str
    claims: list[str]


class Measured(TypedDict):
    """The values of a claim, when it was last measured."""

    values: list[float]
    machine: str
    date: str


class _Declared(TypedDict):
    claims: list[Claim]
    older: list[OlderClaim]


@dataclass(frozen=True)
class Ledger:
    """Claims, those of older programs, and measured values by the id of their claim."""

    claims: dict[str, Claim]
    older: list[OlderClaim]
    measured: dict[str, Measured]

    def statement(self, name: str) -> str:
        """The text of a claim with its values."""
        return self.claims[name]["text"].format(*self.measured[name]["values"])

    def figures(self, name: str) -> str:
        """The values of a claim with their unit."""
        values = ", ".join(f"{value:.10g}" for value in self.measured[name]["values"])
        return f"{values} {self.claims[name]['unit']}".strip()

    def faults(self) -> Iterator[str]:
        """One line for each claim that is not measured, exceeds its bound or is not what its page says."""
        for name, claim in self.claims.items():
            if name not in self.measured:
                yield f"{name}: not measured; run: python -m benchmarks suite=claims only={name}"
                continue
            values, bounds = self.measured[name]["values"], claim["bound"].split(", ")
            for value, bound in zip(
                values, bounds * len(values) if len(bounds) == 1 else bounds, strict=True
            ):
                if not within(value, bound):
                    yield f"{name}: measured {value:g}, claimed {bound}"
            if self.statement(name) not in without_links(
                (ROOT / claim["page"]).read_text(encoding="utf-8")
            ):
                yield f"{claim['page']}: expected {self.statement(name)!r} (claim {name})"
        for name in self.measured.keys() - self.claims.keys():
            yield f"{RECORDED.name}: {name}: no such claim"


def read_ledger(declared: Path = DECLARED, recorded: Path = RECORDED) -> Ledger:
    """Raises DataError for a malformed file."""
    try:
        parts: _Declared = validate(tomllib.loads(read_text(declared)), _Declared)
    except (tomllib.TOMLDecodeError, ShapeError) as error:
        raise DataError(f"{declared}: {error}") from None
    return Ledger(
        {claim["id"]: claim for claim in parts["claims"]},
        parts["older"],
        read_json(recorded, dict[str, Measured]),
    )


def within(value: float, bound: str) -> bool:
    """Whether a value satisfies a bound such as `<= 1.5`; any value satisfies an empty one."""
    if not bound:
        return True
    sign, limit = bound.split()
    return COMPARISONS[sign](value, float(limit))


def without_links(text: str) -> str:
    """A page on one line, without the links from its figures to the page of claims."""
    return one_line(re.sub(r"\[([^\[\]]*)\]\([^()]*claims\.md#\w+\)", r"\1", text))


def one_line(text: str) -> str:
    """A text with single spaces, so that line breaks and the padding of tables do not count."""
    return re.sub(r"\s+", " ", text)
