"""Pictures of a run: PNG files in its folder and in the store. A disk that is full costs the picture, not the run."""

import io
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxlab.training.state import Run


def new_figure(width: float, height: float) -> Any:
    """A figure of that many inches, without pyplot: no window system, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save_figure(run: Run, figure: Any, path: Path) -> None:
    """Writes the figure, complete or not at all, and hands it to the tracker."""
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture.getvalue())
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        print(f"{path}: not drawn: {error.strerror or error}", file=sys.stderr)
    else:
        run.tracker.log_artifact(path, "plots")
