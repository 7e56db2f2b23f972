"""What differs between two runs: config, data, code, metrics."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from mlxlab.tracking.runs.reader import RunRow

COMMIT = "mlflow.source.git.commit"
_CODE = ("version.", "hardware.", COMMIT, "git.dirty")  # prefixes of tags

# Key -> the values of both runs, None where a run has none.
Pairs: TypeAlias = dict[str, tuple[Any, Any]]


def diff(first: RunRow, second: RunRow) -> dict[str, Pairs]:
    """What differs of the config, of the data (name -> digests) and of the code: commit, versions, hardware.

    Of metrics all: `best` has main ones of the best evaluations, `metrics` the latest values.
    """
    code = _changes(_code(first), _code(second))
    if not (first.is_stored and second.is_stored):
        # A run folder does not tell all that a store knows.
        code = {key: pair for key, pair in code.items() if None not in pair}
    return {
        "config": _changes(first.params, second.params),
        "data": _changes(first.datasets, second.datasets),
        "code": code,
        "best": _pairs(first.best, second.best),
        "metrics": _pairs(first.metrics, second.metrics),
    }


def _code(run: RunRow) -> dict[str, str]:
    return {key: text for key, text in run.tags.items() if key.startswith(_CODE)}


def _changes(first: Mapping[str, str], second: Mapping[str, str]) -> Pairs:
    pairs = _pairs(first, second)
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    return {key: (first.get(key), second.get(key)) for key in sorted({*first, *second})}
