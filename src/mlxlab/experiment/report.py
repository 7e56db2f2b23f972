"""The report at the end of a run: the best evaluation, the baselines, and the commands to type next."""

import logging
import shlex
from collections.abc import Iterable
from pathlib import Path

from mlxlab.checkpoint.state import History
from mlxlab.experiment.manifest import without_nonfinite
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.program import command
from mlxlab.training.state import TrainState

logger = logging.getLogger(__name__)


def write_report(state: TrainState, baselines: dict[str, float], folder: Path) -> str:
    """Writes `summary.md` and `metrics.json` with the baselines' accuracy on the same rows; returns the table as text.

    `metrics` are those of the best evaluation, `final` those of the last: nothing was chosen by them.
    """
    history, progress, best = state.history, state.progress, state.history.best_metrics
    paragraphs = [f"no evaluation was finite: {len(history.evaluations)} evaluations, {progress.step} steps"]
    if best:
        heading = f"best of {len(history.evaluations)} evaluations, step {history.best_step} of {progress.step}:"
        rows = [(name.removeprefix(VALID), value) for name, value in best.items()]
        paragraphs = [f"{heading}\n{value_table('model', rows)}"]
    if baselines and best:
        ranking = [*baselines.items(), ("this model", best.get(f"{VALID}accuracy", float("nan")))]
        paragraphs.append(value_table("accuracy of", sorted(ranking, key=lambda row: row[1])))
    if history.reference:
        paragraphs.append(side_by_side(history.reference))
    if progress.nonfinite_steps:
        paragraphs.append(f"{progress.nonfinite_steps} steps were skipped: loss or gradient not finite")
    text = "\n\n".join(paragraphs)
    write_atomic(folder / "summary.md", f"# {folder.name}\n\n{text}\n")
    results = {
        "best_step": history.best_step,
        "steps": progress.step,
        "metrics": best,
        "final": final_metrics(history),
        "baselines": baselines,
        "reference": history.reference,
    }
    write_json(folder / "metrics.json", without_nonfinite(results))
    return text


def final_metrics(history: History) -> dict[str, float]:
    """Metrics of the last evaluation, also if it was made before a resume."""
    points = ({k: v for k, v in metrics.items() if k.startswith(VALID)} for _, metrics in reversed(history.curve))
    return next(filter(None, points), {})


def next_commands(run_dir: Path, generates: bool) -> list[str]:
    """Commands for the finished run, in the form in which the user called this program."""
    subcommands = ["evaluate", *(["generate"] if generates else [])]
    return [f"next: {command(name)} {shlex.quote(f'run={run_dir}')}" for name in subcommands]


def side_by_side(measured: dict[str, dict[str, float]]) -> str:
    """A column of metrics for each model, and the size of the student as a share of the teacher's."""
    student, teacher = measured["student"], measured["teacher"]
    formats = {name: ",.0f" if name == "parameters" else ".4f" for name in student}
    rows = [[name, *(format(model[name], formats[name]) for model in measured.values())] for name in student]
    share = student["parameters"] / teacher["parameters"]
    return (
        f"{markdown_table(['at the last step', *measured], rows)}\n\n"
        f"The student has {share:.1%} of the teacher's parameters. One run cannot tell whether that helped:\n"
        f"train without teachers too, both over several seeds, and run `{command('compare')}`."
    )


def value_table(title: str, rows: Iterable[tuple[str, float]]) -> str:
    return markdown_table([title, "value"], [(name, f"{value:.4f}") for name, value in rows])


def log_lines(*lines: str) -> None:
    """Logs lines for the user, which go to standard error; results go to standard output."""
    for line in lines:
        logger.info(line)
