"""What differs between two runs: config, data, code, metrics."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from mlxlab.tracking.runs.reader import RunRow

COMMIT = "mlflow.source.git.commit"
_CODE = ("version.", COMMIT, "git.dirty")  # prefixes of tags

# Section -> key -> the values of both runs, None where a run has none.
Difference: TypeAlias = dict[str, dict[str, tuple[Any, Any]]]


def diff(first: RunRow, second: RunRow) -> Difference:
    """The code is compared by what is known of both runs.

    All metrics are given: `best` has the main ones of the best evaluations, `metrics` the latest values.
    """
    tags = _changes(first.tags, second.tags)
    return {
        "config": _changes(first.params, second.params),
        "data": _changes(first.datasets, second.datasets),
        "code": {key: tags[key] for key in tags if key.startswith(_CODE) and None not in tags[key]},
        "best": _pairs(first.best, second.best),
        "metrics": _pairs(first.metrics, second.metrics),
    }


def _changes(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    pairs = _pairs(first, second)
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (first.get(key), second.get(key)) for key in sorted({*first, *second})}
