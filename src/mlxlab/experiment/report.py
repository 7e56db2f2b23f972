"""The table at the end of a run: the best evaluation beside what no learning reaches."""

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.markdown import markdown_table
from mlxlab.program import command

if TYPE_CHECKING:
    from mlxlab.training.state import History, TrainState


def write_report(state: "TrainState", baselines: dict[str, float], folder: Path) -> str:
    """Writes `summary.md` and `metrics.json`; returns the table as text.

    `metrics` are those of the best evaluation, `final` those of the last: nothing was chosen by them.

    Args:
        baselines: accuracy by name, on the same validation rows.
    """
    history, progress = state.history, state.progress
    rows = [(name.removeprefix("valid/"), value) for name, value in history.best_metrics.items()]
    if rows:
        heading = f"best of {len(history.evaluations)} evaluations, step {history.best_step} of {progress.step}:"
        lines = [heading, *table("model", rows)]
    else:
        lines = [f"no evaluation was finite: {len(history.evaluations)} evaluations, {progress.step} steps"]
    if baselines and rows:
        mine = history.best_metrics.get("valid/accuracy", float("nan"))
        ladder = sorted([*baselines.items(), ("this model", mine)], key=lambda row: row[1])
        lines += ["", *table("accuracy of", ladder)]
    if history.reference:
        lines += ["", *side_by_side(history.reference)]
    if progress.nonfinite_steps:
        lines += ["", f"{progress.nonfinite_steps} steps were skipped: loss or gradient not finite"]
    text = "\n".join(lines)
    (folder / "summary.md").write_text(f"# {folder.name}\n\n{text}\n")
    figures = {
        "best_step": history.best_step,
        "steps": progress.step,
        "metrics": history.best_metrics,
        "final": {name: value if math.isfinite(value) else None for name, value in _final(history).items()},
        "baselines": baselines,
        "reference": history.reference,
    }
    (folder / "metrics.json").write_text(json.dumps(figures, indent=1))
    return text


def _final(history: "History") -> dict[str, float]:
    """Metrics of the last evaluation, also where it was made before a resume."""
    found = ({k: v for k, v in metrics.items() if k.startswith("valid/")} for _, metrics in reversed(history.curve))
    return next(filter(None, found), {})


def next_commands(run_dir: Path, generates: bool) -> list[str]:
    """What a user may type next, spelled as the program that runs was."""
    script = Path(sys.argv[0])
    prefix, suffix = (f"{script.parent}/", ".py") if script.name == "train.py" else ("mlxlab ", "")
    verbs = ["evaluate", *(["generate"] if generates else [])]
    return [f"next: {prefix}{verb}{suffix} {shlex.quote(f'run={run_dir}')}" for verb in verbs]


def side_by_side(measured: dict[str, dict[str, float]]) -> list[str]:
    """Lines of Markdown: a column for each model, and what share of the teacher the student is."""
    student, teacher = measured["student"], measured["teacher"]
    lines = [f"| at the last step | {' | '.join(measured)} |", "|---|" + "--:|" * len(measured)]
    for name in student:
        digits = ",.0f" if name == "parameters" else ".4f"
        lines.append(f"| {name} | {' | '.join(format(one[name], digits) for one in measured.values())} |")
    share = student["parameters"] / teacher["parameters"]
    lines += [
        "",
        f"The student has {share:.1%} of the teacher's parameters. One run cannot tell whether that helped:",
    ]
    return [*lines, f"train without teachers too, both over several seeds, and run `{command('compare')}`."]


def table(title: str, rows: list[tuple[str, float]]) -> list[str]:
    """Lines of Markdown."""
    return markdown_table([title, "value"], [(name, f"{value:.4f}") for name, value in rows]).splitlines()


def print_status(*lines: str) -> None:
    """Lines for the user on standard error; results go to standard output."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
