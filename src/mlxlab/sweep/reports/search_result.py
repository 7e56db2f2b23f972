"""The result of a search: a table of its trials, the best of them, and the same as `trials.csv` and `search.json`."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from mlxlab.config.hydra.search_space import Point
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.sweep.search.study import Study
from mlxlab.sweep.search.trial import State, Trial

TRIALS, RESULT = "trials.csv", "search.json"
_MAX_ROWS = 20
_PAUSED = "paused: saved at a rung and not promoted; a larger hydra.sweeper.trials may continue the best of them"


def write_search_result(study: Study, folder: Path, command_of: Callable[[Point], str]) -> str:
    """Writes both files; returns the table and the best trials as text."""
    best = best_trials(study)
    write_atomic(folder / TRIALS, _csv(study))
    write_json(folder / RESULT, _as_json(study, best, command_of))
    lines = [_table(study), ""]
    for trial in best[:_MAX_ROWS]:
        values = ", ".join(f"{name} {value:.6g}" for name, value in _values(study, trial).items())
        lines.append(f"best: trial {trial.number}, {values}\n    {command_of(trial.point)}")
    counts = Counter(trial.state for trial in study.trials)
    total = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
    lines.append(f"{total}; {folder / TRIALS}, {folder / RESULT}")
    return "\n".join([*lines, *([_PAUSED] if counts["paused"] else [])])


def _as_json(
    study: Study, best: list[Trial], command_of: Callable[[Point], str]
) -> dict[str, object]:
    """The contents of search.json."""
    settings, counts = study.settings, Counter(trial.state for trial in study.trials)
    return {
        "sampler": settings["sampler"],
        "sampler_settings": settings["sampler_settings"],
        "pruner": settings["pruner"],
        "pruner_settings": settings["pruner_settings"],
        "optuna": settings["optuna"],
        "objectives": settings["objectives"],
        "space": settings["space"],
        "trials": {state: counts[state] for state in get_args(State)},
        "steps": sum(trial.step for trial in study.trials if trial.same_as is None),
        "best": [
            {
                "trial": trial.number,
                "values": _values(study, trial),
                "overrides": trial.point,
                "command": command_of(trial.point),
            }
            for trial in best
        ],
    }


def _values(study: Study, trial: Trial) -> dict[str, float]:
    """By objective."""
    return dict(zip(study.settings["objectives"], trial.values, strict=True))


def best_trials(study: Study) -> list[Trial]:
    """The first trial with the best value; with several objectives those that no other is at least as good in all."""
    costs = {
        trial.number: _costs(study, trial) for trial in study.trials if trial.state == "finished"
    }
    best = list[Trial]()
    for number, cost in sorted(costs.items(), key=lambda item: (item[1], item[0])):
        if not any(
            all(a <= b for a, b in zip(costs[trial.number], cost, strict=True)) for trial in best
        ):
            best.append(study.trials[number])
    return best


def _costs(study: Study, trial: Trial) -> list[float]:
    """The values of a trial, each better when lower."""
    directions = study.settings["objectives"].values()
    return [
        value if each == "minimize" else -value
        for each, value in zip(directions, trial.values, strict=True)
    ]


def _table(study: Study) -> str:
    """The best trials first, then those that were stopped, the furthest first, then those that failed."""
    ranked = sorted(
        (trial for trial in study.trials if trial.values), key=lambda trial: _costs(study, trial)
    )
    finished = [trial for trial in ranked if trial.state == "finished"]
    stopped = [trial for trial in ranked if trial.state != "finished"]
    others = sorted(stopped, key=lambda trial: -trial.step) + [
        trial for trial in study.trials if not trial.values
    ]
    has_steps = study.settings["pruner"] != "none"
    keys, objectives = list(study.settings["space"]), list(study.settings["objectives"])
    rows = []
    for trial in [*finished[:_MAX_ROWS], *others[:_MAX_ROWS]]:
        values = [f"{value:.6g}" for value in trial.values] or [""] * len(objectives)
        point = [_short(trial.point[key]) for key in keys]
        note = trial.reason if trial.same_as is None else f"same as trial {trial.same_as}"
        steps = [str(trial.step)] if has_steps else []
        rows.append(
            [
                str(trial.number),
                trial.state,
                *steps,
                *values,
                *point,
                f"{trial.seconds:.1f}",
                note[:80],
            ]
        )
    head = [
        "trial",
        "state",
        *(["steps"] if has_steps else []),
        *objectives,
        *keys,
        "seconds",
        "note",
    ]
    hidden = len(study.trials) - len(rows)
    more = f"\n({hidden} more in {TRIALS})" if hidden else ""
    return markdown_table(head, rows, "ll" + "r" * (len(head) - 3) + "l") + more


def _short(value: str | int | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _csv(study: Study) -> str:
    """Every trial by number; numbers in full precision."""
    keys, objectives = list(study.settings["space"]), list(study.settings["objectives"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "steps", *objectives, *keys, "seconds", "same_as", "reason"])
    for trial in study.trials:
        values = [*map(repr, trial.values)] or [""] * len(objectives)
        point = [trial.point[key] for key in keys]
        same_as = "" if trial.same_as is None else trial.same_as
        row = [
            trial.number,
            trial.state,
            trial.step or "",
            *values,
            *point,
            trial.seconds,
            same_as,
            trial.reason,
        ]
        writer.writerow(row)
    return text.getvalue()
