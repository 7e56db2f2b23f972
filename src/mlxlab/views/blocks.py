"""What the page of a sweep, a comparison or a trial consists of: cards at the top, then sections of blocks."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from markupsafe import Markup

from mlxlab.views.tables import Table

_MAX_PIXELS = 20_000  # A side of an image has at most as many.

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
class Image:
    """A PNG file; `text` says what it shows. `dpi` is that of its figure."""

    png: bytes
    text: str
    dpi: int
    kind: ClassVar[str] = "image"

    @property
    def source(self) -> Markup:
        """The address of the picture, which is in it: a value of any length, and of no character that is escaped."""
        return Markup(f"data:image/png;base64,{base64.b64encode(self.png).decode()}")

    @property
    def width(self) -> int:
        """The width in pixels of CSS; an inch has 96."""
        return round(96 * png_width(self.png) / self.dpi)


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


Block: TypeAlias = Paragraph | Table | Image | Commands | Listing


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


def png_width(data: bytes) -> int:
    """The width in pixels of a PNG file; ValueError if the data does not begin as one of a sensible size."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("not a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    if not (0 < width <= _MAX_PIXELS and 0 < height <= _MAX_PIXELS):
        raise ValueError(
            f"an image of {width} x {height} pixels, expected at most {_MAX_PIXELS} x {_MAX_PIXELS}"
        )
    return int(width)
