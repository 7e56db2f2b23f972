"""Saves figures of a run as PNG files and artifacts. A figure that cannot be written is skipped with a warning."""

import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.files.atomic import write_atomic
from mlxlab.tracking.tracker import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


def new_figure(width: float, height: float) -> "Figure":
    """A figure of `width` x `height` inches, without the window system and global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save_figure(tracker: Tracker, figure: "Figure", path: Path) -> None:
    """Writes the figure atomically and logs it as an artifact."""
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
