"""Plots the measurements from which the size of the vocabulary was chosen."""

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mlxlab.callbacks.plotting import new_figure, save_figure
from mlxlab.files.untrusted import read_json
from mlxlab.training.context import FitContext
from mlxlab.training.state import StepResult, TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class VocabularyCurve(TypedDict):
    """A vocabulary.json: bytes per token for each vocabulary size, the limits, and the size that was chosen."""

    sizes: list[int]
    bytes_per_token: list[float]
    chosen: int
    reason: str
    limits: dict[str, int | None]


class VocabSizePlot:
    """`plots/vocabulary.png`: bytes per token by vocabulary size, the limits, and the size that was chosen."""

    runs_on_all_ranks = False

    def __init__(self, *, folder: Path) -> None:
        self.curve, self.plot = folder / "inference" / "vocabulary.json", folder / "plots" / "vocabulary.png"

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.curve.is_file() or self.plot.is_file():
            return
        save_figure(context.tracker, plot_vocabulary(read_json(self.curve, VocabularyCurve)), self.plot)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None: ...

    def on_end(self, context: FitContext, state: TrainState) -> None: ...


def plot_vocabulary(curve: VocabularyCurve) -> "Figure":
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
