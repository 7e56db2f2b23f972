"""Cross-validation report: the model and every baseline, as a table, as JSON and as a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import wrap

import numpy as np

from mlxlab.analysis.crossvalidation import FoldResult, FoldRun, read_result
from mlxlab.files.atomic import Json, write_atomic, write_json
from mlxlab.markdown import markdown_table

MODEL = "this model"


@dataclass(frozen=True)
class Row:
    """Accuracies of one method: mean over all folds, its standard error, and the mean of each seed.

    `gain` is the mean of (model - method), paired by fold because folds differ in difficulty, with its standard error.
    """

    name: str
    mean: float
    error: float
    by_seed: list[float]
    gain: float
    gain_error: float


def add_baselines(results: Sequence[FoldResult], methods: Mapping[str, Sequence[FoldRun]]) -> list[FoldResult]:
    """The results with the accuracies of other methods on the same folds among their baselines."""
    accuracies = {
        name: {(run.seed, run.fold): result.final for run in runs if (result := read_result(run)) is not None}
        for name, runs in methods.items()
    }
    merged = []
    for result in results:
        fold = (result.seed, result.fold)
        added = {name: by_fold[fold] for name, by_fold in accuracies.items() if fold in by_fold}
        merged.append(replace(result, baselines=result.baselines | added))
    return merged


def summarise(results: Sequence[FoldResult]) -> list[Row]:
    """A row for the model and for each baseline, in ascending order. The model is evaluated at its last step."""
    accuracies = {name: [result.baselines[name] for result in results] for name in results[0].baselines}
    accuracies[MODEL] = [result.final for result in results]
    model = np.array(accuracies[MODEL])
    seeds = np.array([result.seed for result in results])
    rows = []
    for name, values in accuracies.items():
        method = np.array(values)
        by_seed = [float(method[seeds == seed].mean()) for seed in np.unique(seeds)]
        gains = model - method
        rows.append(Row(name, float(method.mean()), _error(method), by_seed, float(gains.mean()), _error(gains)))
    return sorted(rows, key=lambda row: row.mean)


def markdown(results: Sequence[FoldResult], command: str, notes: str = "") -> str:
    """The table, the evaluation method, notes, and the command that reproduces it."""
    seeds = sorted({result.seed for result in results})
    head = ["accuracy of", "mean", "std. error", *(f"seed {seed}" for seed in seeds), "model - method"]
    rows = []
    for row in summarise(results):
        gain = "" if row.name == MODEL else f"{row.gain:+.3f} ({row.gain_error:.3f})"
        rows.append([row.name, f"{row.mean:.4f}", f"{row.error:.4f}", *(f"{value:.4f}" for value in row.by_seed), gain])
    return "\n".join([markdown_table(head, rows), "", *_method_note(results), *wrap(notes, 120), "", f"    {command}"])


def teacher_note(results: Sequence[FoldResult], student_size: int, teacher_size: int) -> str:
    """The student's accuracy and size relative to those of its teacher, which is among the baselines as `teacher`."""
    student = np.mean([result.final for result in results])
    teacher = np.mean([result.baselines["teacher"] for result in results])
    return (
        f"The student reaches {student / teacher:.1%} of the teacher's accuracy with {student_size:,} of its "
        f"{teacher_size:,} parameters ({student_size / teacher_size:.0%})."
    )


def _method_note(results: Sequence[FoldResult]) -> list[str]:
    folds, seeds = len({result.fold for result in results}), len({result.seed for result in results})
    steps = sorted({result.steps for result in results})
    best = float(np.mean([result.best for result in results]))
    text = (
        f"Folds x seeds: {folds} x {seeds}; a seed shuffles the folds and initialises the weights. The standard error "
        f"is over the {len(results)} runs, which share rows. The model is evaluated at its last step ({_span(steps)}), "
        "so the validation fold selects nothing. "
        f"Mean accuracy of the best checkpoints: {best:.4f}."
    )
    return wrap(text, 120)


def _span(steps: list[int]) -> str:
    return f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def write_report(results: Sequence[FoldResult], command: str, folder: Path, notes: str = "") -> str:
    """Writes table.md, table.json and table.png; returns the Markdown, with `notes` below the table."""
    text = markdown(results, command, notes)
    rows = summarise(results)
    write_atomic(folder / "table.md", text + "\n")
    figures: dict[str, Json] = {
        "command": command,
        "judged": "last step",
        "rows": [asdict(row) for row in rows],
        "fits": [asdict(result) for result in results],
    }
    write_json(folder / "table.json", figures)
    _draw(results, rows, folder / "table.png")
    return text


def _draw(results: Sequence[FoldResult], rows: Sequence[Row], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.55 * len(rows) + 1.2))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for y, row in enumerate(rows):
        color = "C1" if row.name == MODEL else "C0"
        for result in results:
            value = result.final if row.name == MODEL else result.baselines[row.name]
            axis.plot(value, y + 0.12 * (result.seed % 3 - 1), ".", color=color, alpha=0.5)
        axis.errorbar(row.mean, y, xerr=row.error, fmt="|", color="black", markersize=14, capsize=3)
        axis.annotate(f"{row.mean:.3f}", (row.mean, y), xytext=(0, 9), textcoords="offset points", ha="center")
    axis.set_yticks(range(len(rows)), [row.name for row in rows])
    axis.set(xlabel="accuracy: a dot per fold, the mean and its standard error", ylim=(-0.6, len(rows) - 0.3))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean; 0 for a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
