"""Plots as positions for an SVG template, with the colours of the page in light, dark and print.

A plot costs under a millisecond and 2 to 8 KB. matplotlib takes most of a second to import,
50 ms and 24 KB a plot, and its colours are fixed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from mlxlab.wording import one_line

WIDTH = 400
HEIGHT = 230
LEFT = 52
RIGHT = 12
TOP = 12
BOTTOM = 40
ROW_MARGIN = 24  # It is on both sides of the axis of a `RowPlot`, whose names stand above its rows.
ROW_HEIGHT = 30
MAX_POINTS = 400  # a longer line is thinned
MAX_LABEL = 56  # characters that fit above a row
FEW_POINTS = 30  # each of them is marked
LARGEST = 1e100  # larger values are not drawn, or at the edge
Points = Sequence[tuple[float, float | None]]
Pixels = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """`kind` is line, dots, bars, or guide, a dotted line without a name.

    `style` is a class of the style sheet, "" a colour of its own.
    """

    name: str
    points: Points
    kind: str = "line"
    style: str = ""

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn, at most `MAX_POINTS`."""
        drawn = []
        for x, y in self.points:
            if y is not None and abs(y) < LARGEST:
                drawn.append((x, y))
        stride = math.ceil(len(drawn) / MAX_POINTS)
        return drawn[:: max(1, stride)]


@dataclass(frozen=True)
class Axis:
    """A range with round ticks."""

    low: float
    high: float
    step: float

    @property
    def ticks(self) -> list[float]:
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [index * self.step for index in range(first, last + 1)]

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Shape:
    """A series in pixels."""

    name: str
    kind: str
    style: str
    pixels: Pixels

    @property
    def path(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in self.pixels)

    @property
    def dots(self) -> Pixels:
        """The points that are marked: a long line has none."""
        if self.kind == "dots":
            return self.pixels
        if self.kind == "line" and len(self.pixels) <= FEW_POINTS:
            return self.pixels
        return []


@dataclass
class Plot:
    """What a figure shows, in the units of its data; `mark` is an x with a name."""

    form: ClassVar[str] = "plot"

    title: str
    series: list[Series]
    x_label: str = "step"
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    mark: tuple[float, str] | None = None
    shapes: list[Shape] = field(default_factory=list)
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    mark_x: float | None = None

    def __post_init__(self) -> None:
        points = []
        for each in self.series:
            points += each.finite
        if not points:
            return

        xs, ys = zip(*points, strict=True)
        x_axis = axis(xs, self.x_range)
        y_axis = axis(ys, self.y_range)
        self.x_ticks = [(across(x_axis, tick), label(tick)) for tick in x_axis.ticks]
        self.y_ticks = [(down(y_axis, tick), label(tick)) for tick in y_axis.ticks]
        if self.mark:
            self.mark_x = across(x_axis, self.mark[0])
        for index, each in enumerate(self.series):
            pixels = [(across(x_axis, x), down(y_axis, y)) for x, y in each.finite]
            style = each.style or f"s{index}"
            self.shapes.append(Shape(each.name, each.kind, style, pixels))

    @property
    def is_empty(self) -> bool:
        return not self.shapes

    @property
    def legend(self) -> list[Shape]:
        """The shapes with a name, if there are several."""
        if len(self.shapes) < 2:
            return []
        return [each for each in self.shapes if each.name]


@dataclass(frozen=True)
class Row:
    """Values under a name: a line over `span`, dots, and a bar at `mean`."""

    name: str
    dots: Sequence[float] = ()
    mean: float | None = None
    span: tuple[float, float] | None = None
    style: str = "s0"

    @property
    def values(self) -> list[float]:
        values = [*self.dots, *(self.span or ())]
        if self.mean is not None:
            values.append(self.mean)
        return values


@dataclass(frozen=True)
class RowPlot:
    """Rows on one axis, below each other; `guide` is a value that they are compared with."""

    form: ClassVar[str] = "rows"

    title: str
    x_label: str
    rows: Sequence[Row]
    x_range: tuple[float, float] | None = None
    guide: float | None = None

    @cached_property
    def axis(self) -> Axis:
        values = []
        if self.guide is not None:
            values.append(self.guide)
        for row in self.rows:
            values += [bounded(value) for value in row.values]
        return axis(values or [0.0], self.x_range)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        return [(self.x(tick), label(tick)) for tick in self.axis.ticks]

    @property
    def bottom(self) -> int:
        """Where the axis lies."""
        return TOP + ROW_HEIGHT * len(self.rows)

    def x(self, value: float) -> float:
        width = WIDTH - 2 * ROW_MARGIN
        return round(ROW_MARGIN + width * self.axis.share(bounded(value)), 1)

    def y(self, index: int) -> int:
        """The height of the marks of a row, with its name above it."""
        return TOP + ROW_HEIGHT * (index + 1) - 6


def bounded(value: float) -> float:
    return min(max(value, -LARGEST), LARGEST)


def short_label(text: str) -> str:
    """Text that fits in a line of a plot, without its middle if it is too long."""
    line = one_line(text)
    if len(line) <= MAX_LABEL:
        return line
    half = MAX_LABEL // 2 - 2
    return f"{line[:half]}...{line[-half:]}"


def axis(values: Sequence[float], limits: tuple[float, float] | None = None) -> Axis:
    """An axis around the values, from tick to tick, or of given limits."""
    if limits:
        return Axis(*limits, round_step((limits[1] - limits[0]) / 5))
    low = min(values)
    high = max(values)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1 / LARGEST):
        margin = 0.1 * abs(low)
        if margin < 1 / LARGEST:
            margin = 1.0
        low -= margin
        high += margin
    step = round_step((high - low) / 5)
    return Axis(math.floor(low / step) * step, math.ceil(high / step) * step, step)


def round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    for factor in (1, 2, 5):
        if factor * power >= step * 0.999:
            return factor * power
    return 10 * power


def across(x_axis: Axis, value: float) -> float:
    width = WIDTH - LEFT - RIGHT
    return round(LEFT + width * x_axis.share(value), 1)


def down(y_axis: Axis, value: float) -> float:
    height = HEIGHT - TOP - BOTTOM
    return round(TOP + height * (1 - y_axis.share(value)), 1)


def label(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}"
    text = f"{value:.1e}".replace(".0e", "e")
    return text.replace("e-0", "e-").replace("e+0", "e")
