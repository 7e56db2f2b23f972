"""Figures of matplotlib: how one is made, labelled, rendered as PNG, and saved."""

import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.files.atomic import write_atomic
from mlxlab.tracking.tracker import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

DPI = 120


def check_plot(out: Path) -> None:
    """Raises ConfigError or CannotCreateError for the path of a plot that cannot be written."""
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"out={out}: expected a name that ends in .png, .pdf or .svg")
    if not out.absolute().parent.is_dir():
        raise CannotCreateError(f"out={out}: there is no folder {out.absolute().parent}")


def new_figure(width: float, height: float) -> "Figure":
    """A figure of `width` x `height` inches, without the window system and global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def label(text: str, max_length: int = 60) -> str:
    """Text as one short line, which is no formula of matplotlib."""
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    half = (max_length - 3) // 2
    text = text if len(text) <= max_length else f"{text[:half]}...{text[-half:]}"
    return text.replace("$", r"\$")


def save_figure(tracker: Tracker, figure: "Figure", path: Path) -> None:
    """Writes a PNG file atomically and logs it as an artifact; one that cannot be written is skipped with a warning."""
    png = render_png(figure)
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, png)
    except OSError as error:
        logger.warning(f"{path}: not written: {error.strerror or error}")
    else:
        tracker.log_artifact(path, "plots")


def render_png(figure: "Figure") -> bytes:
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # a name in another script
        figure.tight_layout()
        figure.savefig(png, dpi=DPI, bbox_inches="tight")
    return png.getvalue()
