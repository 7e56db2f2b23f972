"""What the page of a sweep, a comparison or a trial consists of: cards at the top, then sections of blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from mlxlab.views.plots import Plot, RowPlot
from mlxlab.views.tables import Table

Tone = Literal["", "good", "warning", "bad"]


@dataclass(frozen=True)
class Paragraph:
    """`is_note` is small print, `is_verdict` a conclusion; `is_good` colours it."""

    text: str
    is_note: bool = False
    is_verdict: bool = False
    is_good: bool = False
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Plots:
    """Plots side by side, where the page is wide enough."""

    plots: Sequence[Plot | RowPlot]
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Commands:
    """Command lines by what they are for."""

    commands: Mapping[str, str]
    kind: ClassVar[str] = "commands"


@dataclass(frozen=True)
class Listing:
    """Lines as they are, such as a config."""

    text: str
    kind: ClassVar[str] = "listing"


Block: TypeAlias = Paragraph | Table | Plots | Commands | Listing


@dataclass(frozen=True)
class Section:
    """A heading with its blocks; one that `is_folded` is opened by its reader."""

    title: str
    blocks: Sequence[Block]
    is_folded: bool = False


@dataclass(frozen=True)
class Card:
    """The answer to one question: `question` as a heading, a short answer, and what explains it: `facts` by name.

    `tone` colours the answer.
    """

    question: str
    answer: str
    lines: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    tone: Tone = ""


def trust_card(warnings: Sequence[str], good: Sequence[str], *, unknown: str, is_bad: bool) -> Card:
    """The last card of a sweep or a comparison; `unknown` is what could not be judged."""
    lines = []
    if warnings:
        lines.append(f"Attention: {'; '.join(warnings)}.")
    if good:
        lines.append(f"In order: {'; '.join(good)}.")
    if unknown:
        lines.append(f"Not known: {unknown}.")
    question = "Can the result be trusted?"
    if is_bad:
        return Card(question, "No", lines, tone="bad")
    if warnings:
        return Card(question, "With care", lines, tone="warning")
    return Card(question, "Yes", lines, tone="good")


@dataclass(frozen=True)
class Page:
    """`status` is shown next to the title, in the colour of `tone`."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    status: str = ""
    tone: Tone = ""
    cards: Sequence[Card] = ()
