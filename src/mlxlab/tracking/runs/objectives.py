"""The objectives of runs, and the metrics of their best evaluations: of the weights that are used."""

from collections.abc import Iterable, Sequence

from mlxlab.metric_names import VALID
from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.reader import RunReader, RunRow

MAIN = (
    "accuracy",
    "loss",
    "perplexity",
    "bits_per_byte",
    "r2",
    "rmse",
    "f1_macro",
    "roc_auc",
)  # shown first
_MAIN_KEYS = tuple(VALID + name for name in MAIN)


def objective(run: RunRow) -> str | None:
    """As a metric is named in the store; None if the run has none, or its tags were not loaded."""
    return clean(run.tags["objective"]) if "objective" in run.tags else None


def objectives(runs: Iterable[RunRow]) -> set[str]:
    return {key for run in runs if (key := objective(run))}


def load_best(reader: RunReader, runs: list[RunRow], keys: Sequence[str] = _MAIN_KEYS) -> None:
    """Adds the objective and other metrics of its best evaluation to each run whose tags are loaded."""
    for key in objectives(runs):
        optimized = [run for run in runs if objective(run) == key]
        valid = [each for each in keys if each.startswith(VALID)]
        values = reader.best_evaluations(optimized, key, list(dict.fromkeys([key, *valid])))
        for run in optimized:
            run.best = values.get(run.run_id, {})


def best_label(key: str) -> str:
    return f"{key} (best)"


def last_label(key: str) -> str:
    return f"{key} (last)"
