"""What pruning saves on Titanic, and what it loses: ASHA compared with a grid, TPE with ASHA compared with random.

A trial is the same in a grid and in a search with pruning, up to the step where it is paused. So what ASHA does in an
order that is not trained here follows from the evaluations of the grid.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.alternate import table
from mlxlab.record.run_file import read_run
from mlxlab.schema.constraints import Size
from mlxlab.sweep.pruning import SuccessiveHalving
from mlxlab.sweep.study import budget_of
from mlxlab.terminal.wording import percent

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
EPOCHS, RUNGS = 9, [1, 3]
RATES = ("0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05")
DROPOUTS = ("0", "0.1", "0.3")
SPACE = {"trainer.learning_rate": RATES, "model.dropout": DROPOUTS}
SETTINGS = [
    *(
        "experiment=titanic",
        "objective=valid/loss",
        "tracking=none",
        f"trainer.epochs={EPOCHS}",
    ),
    *(
        "model.hidden_size=32",
        "model.num_heads=2",
        "model.intermediate_size=64",
        "model.num_layers=1",
    ),
    *("data.baselines=false", "checkpointing.every_steps=1000", "checkpointing.background=false"),
    *("~callbacks.memory_monitor"),
]
WARMUP = "trainer.schedule.warmup=10"
INTERVALS = ["trainer.learning_rate=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)"]
INTERVALS += [
    "trainer.optimizer.weight_decay=tag(log,interval(1e-4,1))",
    "trainer.schedule.warmup=int(interval(1,60))",
]


class Search(NamedTuple):
    """A search that has ended: its jobs by number, its seconds, and the steps that it trained."""

    folder: Path
    rows: list[dict[str, str]]
    seconds: float
    steps: int

    @property
    def best(self) -> dict[str, str]:
        finished = [row for row in self.rows if row["state"] == "finished"]
        return min(finished, key=lambda row: (float(row["valid/loss"]), int(row["job"])))


def asha(orders: Size = 200, seeds: Size = 5) -> str:
    """A grid of 27 configurations, the same by ASHA in a random order, and by ASHA in `orders` orders.

    Args:
        seeds: of the winner of the grid; the standard deviation of its values is the noise.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = [*(f"{key}={','.join(texts)}" for key, texts in SPACE.items()), WARMUP]
        grid = search(folder / "grid", *values, sweeper="grid")
        pruned = search(
            folder / "asha", "hydra.sweeper.sampler=random", "hydra.sweeper.pruner=asha", *values
        )
        noise = statistics.stdev(repeated(folder / "seeds", grid.best, seeds, WARMUP))
        curves = {point(row): evaluations(grid.folder / row["job"]) for row in grid.rows}
    ranks = sorted(float(row["valid/loss"]) for row in grid.rows)
    lines: list[tuple[str, ...]] = [
        ("search", "steps", "of the grid", "seconds", "best valid/loss", "rank in the grid")
    ]
    for title, each in {"grid": grid, "ASHA": pruned}.items():
        value = float(each.best["valid/loss"])
        share, rank = percent(each.steps / grid.steps), str(ranks.index(value) + 1)
        lines.append((title, str(each.steps), share, f"{each.seconds:.0f}", f"{value:.4f}", rank))
    outcomes = [simulate(curves, seed) for seed in range(orders)]
    steps_of_epoch = grid.steps / (len(curves) * EPOCHS)
    shares = [
        sum(budget_of(trial) or EPOCHS for trial in trials) * steps_of_epoch / grid.steps
        for trials in outcomes
    ]
    bests = [
        min(trial.value for trial in trials if trial.state == TrialState.COMPLETE)
        for trials in outcomes
    ]
    found = sum(best == ranks[0] for best in bests) / orders
    tied = sum(best <= ranks[0] + noise for best in bests) / orders
    summary = [
        ("quantity", "value"),
        (
            "steps, median and maximum",
            f"{percent(statistics.median(shares))}, {percent(max(shares))}",
        ),
    ]
    summary += [
        ("the winner of the grid is found", percent(found)),
        ("... or its tie", percent(tied)),
    ]
    summary += [(f"noise: standard deviation over {seeds} seeds", f"{noise:.4f}")]
    text = table(f"27 configurations of Titanic, {EPOCHS} epochs, rungs at {RUNGS} epochs", lines)
    return f"{text}\n\n{table(f'ASHA in {orders} orders', summary)}"


def tpe(trials: Size = 40, seeds: Size = 5, kills: int = 3) -> str:
    """Random trials, and as many of TPE with ASHA, over four continuous keys; the latter killed and continued.

    Args:
        seeds: of both winners; their standard deviations are the noise.
    """
    count = f"hydra.sweeper.trials={trials}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = search(folder / "random", "hydra.sweeper.sampler=random", count, *INTERVALS)
        pruned = ["hydra.sweeper.sampler=tpe", "hydra.sweeper.pruner=asha", count, *INTERVALS]
        whole = search(folder / "tpe", *pruned)
        killed = search(folder / "killed", *pruned, kills=kills, seconds=whole.seconds)
        winners = [
            repeated(folder / f"seeds{each.folder.name}", each.best, seeds)
            for each in (random, whole)
        ]
    lines: list[tuple[str, ...]] = [
        ("search", "steps", "seconds", "best valid/loss", f"its config over {seeds} seeds")
    ]
    for title, each, values in zip(
        ("random", "TPE with ASHA"), (random, whole), winners, strict=True
    ):
        best = f"{float(each.best['valid/loss']):.4f}"
        spread = f"{statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}"
        lines.append((title, str(each.steps), f"{each.seconds:.0f}", best, spread))
    same = [{**row, "seconds": ""} for row in killed.rows] == [
        {**row, "seconds": ""} for row in whole.rows
    ]
    text = f"killed {kills} times and continued: {'the same table' if same else 'ANOTHER TABLE'}"
    return f"{table(f'{trials} trials on Titanic, {EPOCHS} epochs, rungs at {RUNGS} epochs', lines)}\n\n{text}"


def search(
    folder: Path, *overrides: str, sweeper: str = "search", kills: int = 0, seconds: float = 0.0
) -> Search:
    """Runs a search; one that takes `seconds` is killed `kills` times on the way."""
    command = [
        sys.executable,
        str(SCRIPT),
        "-m",
        f"hydra/sweeper={sweeper}",
        "hydra/launcher=basic",
        *SETTINGS,
        *overrides,
    ]
    command += [f"hydra.sweep.dir={folder}"]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=-3, stderr=-3)
        time.sleep(seconds / (kills + 1))
        process.kill()
        process.wait()
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=-3, stderr=-3)
    seconds = time.monotonic() - start
    with (folder / "report" / "jobs.csv").open() as file:
        rows = list(csv.DictReader(file))
    trained = [read_run(folder / row["job"]).training.steps for row in rows]
    return Search(folder, rows, seconds, sum(trained))


def repeated(folder: Path, row: dict[str, str], seeds: int, *overrides: str) -> list[float]:
    """The objective of a trial with seeds from 1 on."""
    fixed = [f"{key}={value}" for key, value in row.items() if "." in key]
    more_seeds = f"seed=range(1,{seeds + 1})"
    again = search(folder, *fixed, *overrides, more_seeds, sweeper="grid")
    return [float(row["valid/loss"]) for row in again.rows]


def point(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[key] for key in SPACE)


def evaluations(folder: Path) -> list[tuple[int, float]]:
    return [
        (step, float("nan") if value is None else value)
        for step, value in read_run(folder).training.evaluations
    ]


def simulate(
    curves: dict[tuple[str, ...], list[tuple[int, float]]], seed: int
) -> Sequence[FrozenTrial]:
    """The trials of ASHA in a random order, by the evaluation after each epoch."""
    halving = SuccessiveHalving(RUNGS, 3, sign=1)
    points = [*curves]
    order = np.random.default_rng(seed).permutation(len(points))
    trials: list[FrozenTrial] = []
    while True:
        is_last = len(trials) == len(points)
        promotion = halving.promotion(trials, is_last=is_last)
        if promotion is not None:
            number, budget = promotion
        elif is_last:
            return trials
        else:
            number = len(trials)
            budget = halving.rungs[0]
            trials.append(create_trial(state=TrialState.RUNNING))
        trial = _trained(trials[number], budget, curves[points[order[number]]])
        trial.number = number
        trials[number] = trial


def _trained(trial: FrozenTrial, budget: int | None, curve: list[tuple[int, float]]) -> FrozenTrial:
    """A trial that has run to a budget."""
    value = min(value for _, value in curve[:budget])
    rungs = trial.intermediate_values
    attributes = {"budget": budget}
    if budget is None:
        return create_trial(value=value, intermediate_values=rungs, user_attrs=attributes)
    return create_trial(
        state=TrialState.RUNNING,
        intermediate_values={**rungs, budget: value},
        user_attrs=attributes,
    )
