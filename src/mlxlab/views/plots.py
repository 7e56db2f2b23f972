"""Plots as positions for an SVG template, with the colours of the page in light, dark and print.

A plot costs under a millisecond and 2 to 8 KB. matplotlib takes most of a second to import,
50 ms and 24 KB a plot, and its colours are fixed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import ClassVar, TypeAlias

from mlxlab.record.run_record import Interval
from mlxlab.terminal.wording import one_line

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
SMALLEST = 1 / LARGEST
Point: TypeAlias = tuple[float, float]
Points: TypeAlias = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Series:
    """`kind` is line, dots, bars, or guide, a dotted line without a name."""

    name: str
    points: Points
    kind: str = "line"

    @cached_property
    def finite(self) -> list[Point]:
        """The points that can be drawn, at most `MAX_POINTS`."""
        drawn = [(x, y) for x, y in self.points if y is not None and abs(y) < LARGEST]
        stride = math.ceil(len(drawn) / MAX_POINTS)
        return drawn[:: max(1, stride)]

    @property
    def dots(self) -> list[Point]:
        """The points that are marked: a long line has none."""
        if self.kind == "line" and len(self.finite) > FEW_POINTS:
            return []
        return self.finite


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
class Plot:
    """Series of points over the same axes; `mark` is the x of the best evaluation."""

    form: ClassVar[str] = "plot"

    title: str
    series: Sequence[Series]
    x_label: str = "step"
    x_range: Interval | None = None
    y_range: Interval | None = None
    mark: float | None = None

    @cached_property
    def points(self) -> list[Point]:
        """The points of all series."""
        return list(chain.from_iterable(each.finite for each in self.series))

    @cached_property
    def x_axis(self) -> Axis:
        return axis([x for x, _ in self.points], self.x_range)

    @cached_property
    def y_axis(self) -> Axis:
        return axis([y for _, y in self.points], self.y_range)

    @property
    def is_empty(self) -> bool:
        return not self.points

    def x(self, value: float) -> float:
        width = WIDTH - LEFT - RIGHT
        return round(LEFT + width * self.x_axis.share(value), 1)

    def y(self, value: float) -> float:
        height = HEIGHT - TOP - BOTTOM
        return round(TOP + height * (1 - self.y_axis.share(value)), 1)

    def path(self, series: Series) -> str:
        return " ".join(f"{self.x(x):g},{self.y(y):g}" for x, y in series.finite)


@dataclass(frozen=True)
class Row:
    """Values under a name: a line over `span`, dots, and a bar at `mean`."""

    name: str
    dots: Sequence[float] = ()
    mean: float | None = None
    span: Interval | None = None
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
    x_range: Interval | None = None
    guide: float | None = None

    @cached_property
    def axis(self) -> Axis:
        values = []
        if self.guide is not None:
            values.append(self.guide)
        for row in self.rows:
            values += [bounded(value) for value in row.values]
        return axis(values, self.x_range)

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


def axis(values: Sequence[float], limits: Interval | None = None) -> Axis:
    """An axis around the values, from tick to tick, or of given limits."""
    if limits:
        low, high = limits
        return Axis(low, high, round_step((high - low) / 5))
    low = min(values, default=0.0)
    high = max(values, default=0.0)
    rounding_error = 1e-9 * max(abs(low), abs(high))
    if high - low <= max(rounding_error, SMALLEST):
        margin = 0.1 * abs(low)
        if margin < SMALLEST:
            margin = 1.0
        low -= margin
        high += margin
    step = round_step((high - low) / 5)
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return Axis(first * step, last * step, step)


def round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    for factor in (1, 2, 5):
        if factor * power >= step * 0.999:
            return factor * power
    return 10 * power


def label(value: float) -> str:
    """The number at a tick."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}"
    text = f"{value:.1e}".replace(".0e", "e")
    return text.replace("e-0", "e-").replace("e+0", "e")
