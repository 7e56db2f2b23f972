"""Plots how the size of the vocabulary was chosen."""

import json
from pathlib import Path
from typing import Any

from mlxlab.callbacks.plotting import new_figure, save_figure
from mlxlab.training.context import FitContext
from mlxlab.training.state import StepResult, TrainState


class VocabSizePlot:
    """`plots/vocabulary.png`: bytes per token by vocabulary size, the limits, and the size that was chosen."""

    runs_on_all_ranks = False

    def __init__(self, *, folder: Path) -> None:
        self.curve, self.plot = folder / "inference" / "vocabulary.json", folder / "plots" / "vocabulary.png"

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.curve.is_file() or self.plot.is_file():
            return
        save_figure(context.tracker, plot_vocabulary(json.loads(self.curve.read_text(encoding="utf-8"))), self.plot)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None: ...

    def on_end(self, context: FitContext, state: TrainState) -> None: ...


def plot_vocabulary(curve: dict[str, Any]) -> Any:
    """Plots the content of a vocabulary.json."""
    figure = new_figure(5.4, 3.6)
    axis = figure.subplots()
    axis.plot(curve["sizes"], curve["bytes_per_token"], marker=".")
    for (name, limit), color in zip(curve["limits"].items(), ("tab:green", "tab:orange", "tab:purple"), strict=False):
        if limit is not None:
            axis.axvline(limit, color=color, linewidth=0.9, linestyle="--", label=f"{name} {limit}")
    axis.axvline(curve["chosen"], color="black", linewidth=1.2, label=f"chosen {curve['chosen']}")
    axis.set_xscale("log", base=2)
    axis.set(xlabel="tokens in the vocabulary", ylabel="bytes per token", title="size of the vocabulary")
    axis.legend(fontsize=8)
    return figure
