"""The plot of an analysis of the weights."""

from typing import TYPE_CHECKING

import numpy as np

from mlxlab.checkpoint.state import History
from mlxlab.figures import label, new_figure
from mlxlab.metric_names import ANALYSIS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {  # by the second part of a metric's name
    "similarity": "cosine similarity of embedding rows",
    "neighbours": "neighbours of an embedding row",
    "rank": "rank: values with 98 % of the squares / all",
    "drift": "relative change since the last snapshot",
    "update_ratio": "mean update of a step / weights",
    "attention_entropy": "entropy of attention weights (nats)",
}
MAX_COLUMNS = 4
LEGEND_ROWS = 16

Lines = dict[str, list[tuple[int, float]]]  # (step, value) by name


def plot_analysis(history: History) -> "Figure | None":
    """A panel for each kind of quantity by step; None if there is none."""
    from matplotlib.colors import TABLEAU_COLORS
    from matplotlib.rcsetup import cycler

    panels = _panels(history)
    if not panels:
        return None
    styles = cycler(linestyle=["-", "--", ":", "-."]) * cycler(color=list(TABLEAU_COLORS))
    columns = min(len(panels), MAX_COLUMNS)
    rows = -(-len(panels) // columns)
    figure = new_figure(5.2 * columns, 3.8 * rows)
    for index, (kind, lines) in enumerate(panels.items(), 1):
        axis = figure.add_subplot(rows, columns, index)
        axis.set_prop_cycle(styles)
        for name, points in lines.items():
            axis.plot(*np.array(points).T, marker=".", label=label(name))
        axis.set(xlabel="step", title=PANELS[kind])
        axis.legend(fontsize=6, ncols=1 + len(lines) // LEGEND_ROWS)
    return figure


def _panels(history: History) -> dict[str, Lines]:
    """The lines of each panel that has some, in the order of PANELS."""
    panels: dict[str, Lines] = {kind: {} for kind in PANELS}
    for step, metrics in history.curve:
        for name, value in metrics.items():
            kind, _, line = name.removeprefix(ANALYSIS).partition("/")
            if name.startswith(ANALYSIS) and kind in PANELS and "cosine" not in line:
                panels[kind].setdefault(line, []).append((step, value))
    return {kind: lines for kind, lines in panels.items() if lines}
