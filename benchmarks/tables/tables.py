"""`model=tabular` by its default command against five methods of scikit-learn, on the same folds of many tables."""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.default_command import outputs_of, train_and_predict
from benchmarks.kept import Arrays, kept
from benchmarks.tables import peers
from benchmarks.tables.sets import DRAWN, KNOWN, LARGE, Table
from mlxlab.errors import ConfigError

OURS = "mlxlab"
TARGETS = "targets"
SECONDS = "seconds"
SEED = 0
NOISE = 1.96  # standard errors
MIN_PROBABILITY = 1e-5


@dataclass
class Result:
    """What each method predicted for the rows of a table, each row by a fit without its fold."""

    table: Table
    arrays: Arrays

    @property
    def targets(self) -> np.ndarray:
        """(N,) classes or numbers."""
        return self.arrays[TARGETS]

    @property
    def num_classes(self) -> int:
        """C; 0 for numbers."""
        return 0 if self.table.kind == "regression" else self.outputs[OURS].shape[1]

    @property
    def outputs(self) -> Arrays:
        """(N, C) or (N,), by method."""
        others = (SECONDS, TARGETS)
        return {name: each for name, each in self.arrays.items() if name not in others}

    def losses(self, method: str) -> np.ndarray:
        """(N,) 0 or 1 of a class, or the squared error."""
        if self.num_classes:
            return (self.outputs[method].argmax(axis=1) != self.targets).astype(float)
        return (self.outputs[method] - self.targets) ** 2

    def score(self, method: str) -> float:
        """The accuracy, or the root of the mean squared error."""
        loss = float(self.losses(method).mean())
        return 1 - loss if self.num_classes else loss**0.5

    def log_loss(self, method: str) -> float:
        likelihood = self.outputs[method][np.arange(len(self.targets)), self.targets]
        return float(-np.log(np.clip(likelihood, MIN_PROBABILITY, 1)).mean())

    def difference(self, method: str, other: str) -> int:
        """1 where `method` is better than the other beyond noise, -1 where it is worse, else 0."""
        differences = self.losses(other) - self.losses(method)
        error = differences.std(ddof=1) / len(differences) ** 0.5
        if abs(differences.mean()) <= NOISE * error:
            return 0
        return int(np.sign(differences.mean()))


def tables(
    only: str | None = None,
    folds: int = 5,
    workers: int = 2,
    settings: str = "",
    results: str | None = None,
) -> str:
    """A report in Markdown.

    Args:
        only: names of tables, separated by commas; or `known`, `drawn`, `large`;
            the first two are run otherwise.
        workers: commands at a time.
        settings: further overrides, separated by spaces.
        results: a folder that keeps what was measured, from which a later call goes on.
    """
    chosen = _chosen(only)
    measured: list[Result] = []
    for table in chosen:
        measure = partial(_measure, table, folds, workers, settings.split())
        measured.append(Result(table, kept(results, f"{table.name}-{folds}", measure)))
        print(_row(measured[-1]), flush=True)
    return _report(measured)


def _chosen(only: str | None) -> list[Table]:
    if only is None:
        return [*KNOWN, *DRAWN]
    groups = {"known": KNOWN, "drawn": DRAWN, "large": LARGE}
    if only in groups:
        return groups[only]
    by_name = {table.name: table for group in groups.values() for table in group}
    names = only.split(",")
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ConfigError(f"only={unknown[0]}: expected some of {', '.join(by_name)}")
    return [by_name[name] for name in names]


def _measure(table: Table, folds: int, workers: int, settings: Sequence[str]) -> Arrays:
    """The targets, what each method predicted, and the CPU seconds of our training, by fold."""
    from sklearn.model_selection import KFold, StratifiedKFold

    frame = table.read()
    rows = frame.drop(columns=table.target)
    for name in rows:
        if name in table.categories or not pd.api.types.is_numeric_dtype(rows[name]):
            rows[name] = rows[name].astype("string").fillna("missing").astype(object)
    is_classes = table.kind == "classification"
    targets = frame[table.target].to_numpy(np.float64 if not is_classes else object)
    classes: Sequence[str] = []
    if is_classes:
        names, targets = np.unique(targets.astype(str), return_inverse=True)
        classes = names.tolist()
    arrays = {TARGETS: targets}
    costs: list[float] = []
    splitter = StratifiedKFold if is_classes else KFold
    parts = list(splitter(folds, shuffle=True, random_state=SEED).split(rows, targets))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        ours = [
            pool.submit(
                train_and_predict,
                Path(folder) / str(number),
                frame.iloc[train],
                frame.iloc[test],
                [*_settings(table), *settings],
            )
            for number, (train, test) in enumerate(parts)
        ]
        for (train, test), run in zip(parts, ours, strict=True):
            fitted = peers.fit_peers(rows.iloc[train], targets[train], table.kind)
            outputs = {
                name: peers.predict(each, rows.iloc[test], len(classes))
                for name, each in fitted.items()
            }
            answers, cost = run.result()
            costs.append(cost.training)
            outputs[OURS] = outputs_of(answers, classes)
            for name, values in outputs.items():
                shape = (len(targets), *values.shape[1:])
                arrays.setdefault(name, np.zeros(shape))[test] = values
    return arrays | {SECONDS: np.array(costs)}


def _settings(table: Table) -> list[str]:
    types = ", ".join(f"{name}: category" for name in table.categories)
    task = "single" if table.kind == "classification" else table.kind
    target = f"data.target={table.target}"
    return ["data=table", target, f"data.task={task}", f"data.types={{{types}}}"]


def _methods(results: Sequence[Result]) -> list[str]:
    return list(results[0].outputs)


def _best_peer(result: Result) -> str:
    return min(
        (name for name in result.outputs if name != OURS),
        key=lambda name: result.losses(name).mean(),
    )


def _row(result: Result) -> str:
    scores = [f"{result.score(name):.4g}" for name in result.outputs]
    signs = {1: "+", 0: "", -1: "-"}
    best = signs[result.difference(OURS, _best_peer(result))]
    boosting = signs[result.difference(OURS, "boosting")]
    seconds = f"{result.arrays[SECONDS].mean():.1f}"
    cells = [result.table.name, str(len(result.targets)), *scores, best, boosting, seconds]
    return f"| {' | '.join(cells)} |"


def _ranks(results: Sequence[Result]) -> Mapping[str, float]:
    """The mean rank of each method, of equal ones the mean."""
    losses = pd.DataFrame(
        [{name: each.losses(name).mean() for name in each.outputs} for each in results]
    )
    return losses.rank(axis=1).mean().to_dict()


def _report(results: Sequence[Result]) -> str:
    methods = _methods(results)
    columns = ["table", "rows", *methods, "to best peer", "to boosting", "CPU s a fold"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += map(_row, results)
    groups = {
        "all": results,
        "known": [each for each in results if each.table in KNOWN],
        "drawn": [each for each in results if each.table in DRAWN],
        "large": [each for each in results if each.table in LARGE],
    }
    lines.append("")
    for name, group in groups.items():
        if group:
            lines.append(_summary(name, group))
    return "\n".join(lines)


def _summary(name: str, results: Sequence[Result]) -> str:
    ranks = ", ".join(f"{method} {rank:.2f}" for method, rank in _ranks(results).items())
    of_best = [result.difference(OURS, _best_peer(result)) for result in results]
    of_boosting = [result.difference(OURS, "boosting") for result in results]
    counts = [
        f"best peer {of_best.count(1)} better, {of_best.count(-1)} worse",
        f"boosting {of_boosting.count(1)} better, {of_boosting.count(-1)} worse",
    ]
    text = f"{name} ({len(results)}): mean rank {ranks}; beyond noise than the {'; '.join(counts)}"
    classified = [result for result in results if result.num_classes]
    if not classified:
        return text
    losses = {
        method: np.mean([result.log_loss(method) for result in classified])
        for method in _methods(results)
        if method != "svm"
    }
    return f"{text}; log loss {', '.join(f'{key} {value:.4f}' for key, value in losses.items())}"
