"""Shows where a run is: a bar on a terminal, plain lines in a log."""

import sys
from typing import Literal

from tqdm import tqdm

from mlxlab.training.state import Run


class ProgressBar:
    """Writes to standard error: results on standard output stay clean.

    Args:
        bar: auto draws a bar on a terminal and writes lines elsewhere; always and never choose; off says nothing.
    """

    def __init__(self, bar: Literal["auto", "always", "never", "off"]) -> None:
        self.mode = bar
        self.draws = bar == "always" or (bar == "auto" and sys.stderr.isatty())
        self._bar: tqdm | None = None

    def on_start(self, run: Run) -> None:
        if self.draws:
            self._bar = tqdm(total=run.total_steps, initial=run.step, unit="step", dynamic_ncols=True, leave=True)

    def on_step(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.update(run.step - self._bar.n)
            self._bar.set_postfix_str(summary(run), refresh=False)
        elif self.mode != "off" and run.evaluation is not None:
            print(f"step {run.step}{f'/{run.total_steps}' if run.total_steps else ''}  {summary(run)}", file=sys.stderr)

    def on_end(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.close()


def summary(run: Run) -> str:
    """The latest figures in a few words."""
    shown = ["train/loss", "valid/loss", run.objective.name]
    return "  ".join(f"{name} {run.metrics[name]:.4f}" for name in dict.fromkeys(shown) if name in run.metrics)
