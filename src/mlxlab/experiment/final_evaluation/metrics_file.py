"""Writes `metrics.json`: what was measured of a run that ended, or that its sweep stopped."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from mlxlab.experiment.metadata import final_metrics
from mlxlab.experiment.run_metrics import FILE, RunMetrics
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.record.run_record import Evaluation
from mlxlab.training.state import TrainState
from mlxlab.training.stop_rule import Stop

V = TypeVar("V")


def write_metrics(folder: Path, state: TrainState, evaluation: Evaluation) -> None:
    write_json(folder / FILE, without_nonfinite(run_metrics(state, evaluation)))


def write_pruned(folder: Path, state: TrainState, stop: Stop, reason: str) -> None:
    """The metrics of a run that a sweep stopped, which nothing has evaluated but the training loop."""
    metrics = run_metrics(state, Evaluation())
    metrics |= {"state": stop, "reason": reason}
    write_json(folder / FILE, without_nonfinite(metrics))


def run_metrics(state: TrainState, evaluation: Evaluation) -> RunMetrics:
    history = state.history
    splits = {each.split: each for each in evaluation.results}
    held_out = [each for each in evaluation.results if each.split != "out_of_fold"]
    names = dict.fromkeys(name for each in held_out for name in each.baselines)
    main = evaluation.main_metric
    test, out_of_fold = splits.get("test"), splits.get("out_of_fold")
    return {
        "best_step": history.best_step,
        "steps": state.progress.step,
        "main_metric": main if any(each.gains for each in held_out) else None,
        "metrics": {**history.best_metrics},
        "final": {**final_metrics(history)},
        "test": _keyed("test", test.metrics) if test else {},
        "out_of_fold": {**out_of_fold.metrics} if out_of_fold else {},
        "intervals": _merged(_keyed(each.split, each.intervals) for each in evaluation.results),
        "baselines": {
            name: _merged(_keyed(each.split, each.baselines.get(name, {})) for each in held_out)
            for name in names
        },
        "gains": {
            name: {
                f"{each.split}/{main}": each.gains[name] for each in held_out if name in each.gains
            }
            for name in names
        },
        "rows": {each.split: each.rows for each in evaluation.results if each.rows},
        "reference": {name: {**metrics} for name, metrics in history.reference.items()},
        "evaluations": [*history.evaluations],
        "state": "finished",
    }


def _keyed(split: str, values: Mapping[str, V]) -> dict[str, V]:
    return {f"{split}/{name}": value for name, value in values.items()}


def _merged(parts: Iterable[dict[str, V]]) -> dict[str, V]:
    merged: dict[str, V] = {}
    for each in parts:
        merged |= each
    return merged
