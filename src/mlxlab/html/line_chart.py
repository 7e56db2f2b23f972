"""A line chart as SVG, with the colours of the page: sharp at every width, in light, dark and print."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
MAX_POINTS = 400  # of a line; of more, evenly spaced ones are drawn
MAX_LINES = 4
_MARKED = 30  # points up to which each is marked

Points = Sequence[tuple[float, float | None]]  # None: not finite


@dataclass(frozen=True)
class Axis:
    """The range of an axis and its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def position(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class LineChart:
    """Lines by name through (x, y); `mark` is an x with its name, drawn as a dotted line.

    `end` is where the x axis ends that begins at 0: charts with the same one can be read side by side. None fits the
    axis to the points.
    """

    title: str
    lines: Mapping[str, Points]
    x_label: str = "step"
    mark: tuple[float, str] | None = None
    end: float | None = None

    @property
    def finite(self) -> dict[str, list[tuple[float, float]]]:
        """The points that can be drawn, by line."""
        lines = {}
        for name, points in list(self.lines.items())[:MAX_LINES]:
            drawn = [
                (x, y) for x, y in points if y is not None and abs(y) < 1e100 and abs(x) < 1e100
            ]
            if drawn:
                lines[name] = drawn[:: -(-len(drawn) // MAX_POINTS)]
        return lines

    @property
    def summary(self) -> str:
        """What the chart shows, for those who cannot see it."""
        texts = [
            f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}"
            for name, points in self.finite.items()
        ]
        return f"{self.title} by {self.x_label}: {'; '.join(texts) or 'no finite value'}"

    def draw(self) -> "Drawing | None":
        """The chart in pixels; None without a finite point."""
        lines = self.finite
        points = [point for line in lines.values() for point in line]
        if not points:
            return None
        ends = [] if self.end is None else [0.0, self.end]
        x_axis, y_axis = (
            _counting_axis([*ends, *(x for x, _ in points)]),
            _axis([y for _, y in points]),
        )
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

        def across(x: float) -> float:
            return round(LEFT + width * x_axis.position(x), 1)

        def down(y: float) -> float:
            return round(TOP + height * (1 - y_axis.position(y)), 1)

        drawn = {name: [(across(x), down(y)) for x, y in line] for name, line in lines.items()}
        is_inside = self.mark is not None and x_axis.low <= self.mark[0] <= x_axis.high
        return Drawing(
            paths={name: " ".join(f"{x:g},{y:g}" for x, y in line) for name, line in drawn.items()},
            dots={name: line if len(line) <= _MARKED else [] for name, line in drawn.items()},
            x_ticks=[(across(x), _label(x)) for x in x_axis.ticks],
            y_ticks=[(down(y), _label(y)) for y in y_axis.ticks],
            mark=(across(self.mark[0]), self.mark[1]) if self.mark and is_inside else None,
        )


@dataclass(frozen=True)
class Drawing:
    """A chart in pixels."""

    paths: dict[str, str]
    dots: dict[str, list[tuple[float, float]]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    mark: tuple[float, str] | None


def _axis(values: Sequence[float]) -> Axis:
    """A range with round ticks around values."""
    low, high = _range(values)
    step = _round_step((high - low) / 4)
    ticks = tuple(n * step for n in range(math.floor(low / step), math.ceil(high / step) + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def _counting_axis(values: Sequence[float]) -> Axis:
    """From the lowest to the highest of some counts, with round ticks in between."""
    low, high = _range(values)
    step = max(_round_step((high - low) / 6), 1.0)
    return Axis(
        low,
        high,
        tuple(n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest value; more than that if they are equal, and of zeros nothing below them."""
    low, high = min(values), max(values)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    margin = 0.1 * abs(low)
    return (low - margin, high + margin) if margin else (0.0, 1.0)


def _round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, ... that is not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= step * 0.999)


def _label(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace(".0e", "e")
    return f"{value:.6g}"
