"""The result of a search: a table of its trials, the best of them, and the same as `trials.csv` and `search.json`."""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from omegaconf import DictConfig

from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.hydra.search_space import Domain, Point, override_texts
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.sweep.study import Question, State, Study, Trial

TRIALS = "trials.csv"
RESULT = "search.json"
_MAX_ROWS = 20
_PAUSED = "paused: saved at a rung and not promoted; a larger hydra.sweeper.trials may continue the best of them"
Cell = str | int | float
_OF_SWEEP = (
    "hydra.sweep.dir=",
    "hydra.mode=",
    "hydra.sweeper.",
    "hydra/sweeper=",
    "hydra/launcher=",
    "hydra.launcher.",
)


def trial_command(config: DictConfig, overrides: Sequence[str], point: Point) -> str:
    """The command that trains the point of a trial again, as a run of its own.

    Args:
        config: that of the sweep.
        overrides: of every trial.
    """
    flags: list[str] = []
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            flags += ["--config-dir", source.path]
    if config.hydra.job.config_name != "train":
        flags += ["--config-name", config.hydra.job.config_name]
    typed = as_typed(config.hydra.overrides.hydra)
    hydra = [text for text in typed if not text.lstrip("+").startswith(_OF_SWEEP)]
    if any(text.startswith("sweep=") for text in overrides):
        hydra.insert(0, "hydra.mode=RUN")
    return f"mlxlab train {shlex.join([*flags, *hydra, *overrides, *override_texts(point)])}"


def write_search_result(
    study: Study, space: list[Domain], folder: Path, command_of: Callable[[Point], str]
) -> str:
    """Writes both files; returns the table and the best trials as text."""
    result = SearchResult(study.question, study.trials(space))
    write_atomic(folder / TRIALS, result.csv())
    write_json(folder / RESULT, result.as_json(command_of))
    return f"{result.table()}\n\n{result.summary(folder, command_of)}"


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search, and the views of them."""

    question: Question
    trials: list[Trial]

    @property
    def objectives(self) -> list[str]:
        return list(self.question["objectives"])

    def best(self) -> list[Trial]:
        """The first trial with the best value; with several objectives those that no other one dominates."""
        finished = [trial for trial in self.trials if trial.state == "finished"]
        best: list[Trial] = []
        for trial in sorted(finished, key=lambda trial: (self._costs(trial), trial.number)):
            if not any(self._is_as_good(other, trial) for other in best):
                best.append(trial)
        return best

    def as_json(self, command_of: Callable[[Point], str]) -> dict[str, object]:
        """The contents of search.json."""
        counts = Counter(trial.state for trial in self.trials)
        best = []
        for trial in self.best():
            best.append(
                {
                    "trial": trial.number,
                    "values": self._values(trial),
                    "overrides": trial.point,
                    "command": command_of(trial.point),
                }
            )
        return {
            **self.question,
            "trials": {state: counts[state] for state in get_args(State)},
            "steps": sum(trial.step for trial in self.trials if trial.same_as is None),
            "best": best,
        }

    def summary(self, folder: Path, command_of: Callable[[Point], str]) -> str:
        """The best trials with the commands that repeat them, and how many trials came to what."""
        lines = []
        for trial in self.best()[:_MAX_ROWS]:
            values = [f"{name} {value:.6g}" for name, value in self._values(trial).items()]
            lines.append(f"best: trial {trial.number}, {', '.join(values)}")
            lines.append(f"    {command_of(trial.point)}")
        counts = Counter(trial.state for trial in self.trials)
        total = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
        lines.append(f"{total}; {folder / TRIALS}, {folder / RESULT}")
        if counts["paused"]:
            lines.append(_PAUSED)
        return "\n".join(lines)

    def table(self) -> str:
        """The best trials first, then those that were stopped, the furthest first, then those without a value."""
        finished = [trial for trial in self.trials if trial.state == "finished"]
        finished.sort(key=self._costs)
        others = [trial for trial in self.trials if trial.state != "finished"]
        others.sort(key=lambda trial: (not trial.values, -trial.step))
        shown = [*finished[:_MAX_ROWS], *others[:_MAX_ROWS]]
        rows = [[_short(cell) for cell in self._row(trial)] for trial in shown]
        table = markdown_table(self._head(), rows, "llr")
        hidden = len(self.trials) - len(shown)
        return f"{table}\n({hidden} more in {TRIALS})" if hidden else table

    def csv(self) -> str:
        """Every trial by number; numbers in full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._head())
        writer.writerows(map(self._row, self.trials))
        return text.getvalue()

    def _head(self) -> list[str]:
        keys = [*self.objectives, *self.question["space"]]
        return ["trial", "state", "steps", *keys, "seconds", "same_as", "reason"]

    def _row(self, trial: Trial) -> list[Cell]:
        values: list[Cell] = [*trial.values] or [""] * len(self.objectives)
        point = [trial.point[key] for key in self.question["space"]]
        same_as: Cell = "" if trial.same_as is None else trial.same_as
        start: list[Cell] = [trial.number, trial.state, trial.step or ""]
        return [*start, *values, *point, trial.seconds, same_as, trial.reason]

    def _values(self, trial: Trial) -> dict[str, float]:
        """The values of a trial by objective."""
        return dict(zip(self.objectives, trial.values, strict=True))

    def _costs(self, trial: Trial) -> list[float]:
        """The values of a trial, each better when lower."""
        pairs = zip(self.question["objectives"].values(), trial.values, strict=True)
        return [value if direction == "minimize" else -value for direction, value in pairs]

    def _is_as_good(self, other: Trial, trial: Trial) -> bool:
        """Whether a trial is at least as good as another one in all objectives."""
        pairs = zip(self._costs(other), self._costs(trial), strict=True)
        return all(cost <= own for cost, own in pairs)


def _short(cell: Cell) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)[:80]
