"""The plot of an analysis of the weights."""

from typing import TYPE_CHECKING

from mlxlab.callbacks.plots import plot_points
from mlxlab.checkpoint.state import History
from mlxlab.figures import label, new_figure
from mlxlab.metric_names import ANALYSIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {  # by the second part of a metric's name
    "similarity": "cosine similarity of embedding rows",
    "neighbours": "neighbours of an embedding row",
    "rank": "rank: values with 98 % of the squares / all",
    "entropy_rank": "entropy rank / full rank",
    "drift": "relative change since the last snapshot",
    "update_ratio": "mean update of a step / weights",
    "attention_entropy": "entropy of attention weights (nats)",
}
DASHES = ("-", "--", ":", "-.")


def plot_analysis(history: History) -> "Figure | None":
    """A panel for each kind of quantity by step; None if there is none."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}  # kind -> name -> (step, value)
    for step, metrics in history.curve:
        for name, value in metrics.items():
            kind, _, line = name.removeprefix(ANALYSIS).partition("/")
            if name.startswith(ANALYSIS) and kind in PANELS and "cosine" not in line:
                panels.setdefault(kind, {}).setdefault(line, []).append((step, value))
    if not panels:
        return None
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = new_figure(5.2 * columns, 3.8 * rows)
    for index, kind in enumerate(kind for kind in PANELS if kind in panels):
        axis = figure.add_subplot(rows, columns, index + 1)
        styles = line_styles([*panels[kind]])
        for name, points in panels[kind].items():
            plot_points(axis, points, "")
            axis.lines[-1].set(**styles[name])
        axis.set(xlabel="step", title=PANELS[kind])
        add_legend(axis, styles)
    return figure


def line_styles(names: list[str]) -> dict[str, dict[str, object]]:
    """Colour by the part of a name before `/`, dashes by that after it."""
    from matplotlib import colormaps

    parts = {name: name.partition("/")[::2] for name in names}
    firsts, seconds = (list(dict.fromkeys(pair[i] for pair in parts.values())) for i in (0, 1))
    palette = colormaps["tab10" if len(firsts) <= 10 else "viridis"]
    colors = [
        palette(index if len(firsts) <= 10 else index / len(firsts)) for index in range(len(firsts))
    ]
    return {
        name: {
            "color": colors[firsts.index(first)],
            "linestyle": DASHES[seconds.index(second) % len(DASHES)],
        }
        for name, (first, second) in parts.items()
    }


def add_legend(axis: "Axes", styles: dict[str, dict[str, object]]) -> None:
    """One entry for each colour and one for each kind of dashes, not for each line."""
    from matplotlib.lines import Line2D

    names = [(*name.partition("/")[::2], style) for name, style in styles.items()]
    entries = {first: Line2D([], [], color=style["color"]) for first, _, style in names}
    entries |= {
        second: Line2D([], [], color="gray", linestyle=style["linestyle"])
        for _, second, style in names
        if second
    }
    axis.legend(
        [*entries.values()],
        [label(entry) for entry in entries],
        fontsize=6,
        ncols=1 + len(entries) // 16,
    )
