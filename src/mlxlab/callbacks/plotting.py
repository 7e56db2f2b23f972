"""Figures of a run: PNG files in its folder and in the store. A full disk costs the figure, not the run."""

import io
import logging
from pathlib import Path
from typing import Any

from mlxlab.files.atomic import write_atomic
from mlxlab.tracking.tracker import Tracker

logger = logging.getLogger(__name__)


def new_figure(width: float, height: float) -> Any:
    """A figure of that size in inches, without pyplot: no window system, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save_figure(tracker: Tracker, figure: Any, path: Path) -> None:
    """Writes the figure, complete or not at all, and logs it as an artifact."""
    figure.tight_layout()
    png = io.BytesIO()
    figure.savefig(png, dpi=120)
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, png.getvalue())
    except OSError as error:
        logger.warning(f"{path}: not written: {error.strerror or error}")
    else:
        tracker.log_artifact(path, "plots")
