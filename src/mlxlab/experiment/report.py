"""The report at the end of a run: the best evaluation, the baselines, and the commands to type next."""

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.experiment.manifest import without_nonfinite
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.program import command

if TYPE_CHECKING:
    from mlxlab.training.state import History, TrainState

logger = logging.getLogger(__name__)


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
        accuracy = history.best_metrics.get("valid/accuracy", float("nan"))
        ranking = sorted([*baselines.items(), ("this model", accuracy)], key=lambda row: row[1])
        lines += ["", *table("accuracy of", ranking)]
    if history.reference:
        lines += ["", *side_by_side(history.reference)]
    if progress.nonfinite_steps:
        lines += ["", f"{progress.nonfinite_steps} steps were skipped: loss or gradient not finite"]
    text = "\n".join(lines)
    write_atomic(folder / "summary.md", f"# {folder.name}\n\n{text}\n")
    results = {
        "best_step": history.best_step,
        "steps": progress.step,
        "metrics": history.best_metrics,
        "final": _final(history),
        "baselines": baselines,
        "reference": history.reference,
    }
    write_json(folder / "metrics.json", without_nonfinite(results))
    return text


def _final(history: "History") -> dict[str, float]:
    """Metrics of the last evaluation, also if it was made before a resume."""
    points = ({k: v for k, v in metrics.items() if k.startswith("valid/")} for _, metrics in reversed(history.curve))
    return next(filter(None, points), {})


def next_commands(run_dir: Path, generates: bool) -> list[str]:
    """Commands for the finished run, in the form in which the user called this program."""
    script = Path(sys.argv[0])
    prefix, suffix = (f"{script.parent}/", ".py") if script.name == "train.py" else ("mlxlab ", "")
    verbs = ["evaluate", *(["generate"] if generates else [])]
    return [f"next: {prefix}{verb}{suffix} {shlex.quote(f'run={run_dir}')}" for verb in verbs]


def side_by_side(measured: dict[str, dict[str, float]]) -> list[str]:
    """Lines of Markdown: a column for each model, and the size of the student as a share of the teacher's."""
    student, teacher = measured["student"], measured["teacher"]
    lines = [f"| at the last step | {' | '.join(measured)} |", "|---|" + "--:|" * len(measured)]
    for name in student:
        digits = ",.0f" if name == "parameters" else ".4f"
        lines.append(f"| {name} | {' | '.join(format(metrics[name], digits) for metrics in measured.values())} |")
    share = student["parameters"] / teacher["parameters"]
    lines += [
        "",
        f"The student has {share:.1%} of the teacher's parameters. One run cannot tell whether that helped:",
    ]
    return [*lines, f"train without teachers too, both over several seeds, and run `{command('compare')}`."]


def table(title: str, rows: list[tuple[str, float]]) -> list[str]:
    """Lines of Markdown."""
    return markdown_table([title, "value"], [(name, f"{value:.4f}") for name, value in rows]).splitlines()


def log_lines(*lines: str) -> None:
    """Logs lines for the user, which go to standard error; results go to standard output."""
    for line in lines:
        logger.info(line)
