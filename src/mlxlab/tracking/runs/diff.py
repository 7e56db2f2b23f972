"""What differs between two runs: config, data, code, metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from mlxlab.tracking.runs.reader import RunRow

Text = tuple[str | None, str | None]
Number = tuple[float | None, float | None]
_Value = TypeVar("_Value", str, float)

COMMIT = "mlflow.source.git.commit"
_CODE = ("version.", "hardware.", COMMIT, "git.dirty")  # prefixes of tags


@dataclass(frozen=True)
class RunDiff:
    """Key -> the values of both runs, None where a run has none.

    `best` has main metrics of the best evaluations, `metrics` the latest values of all metrics.
    """

    config: dict[str, Text]
    data: dict[str, Text]  # name -> digests
    code: dict[str, Text]  # commit, versions of packages, hardware
    best: dict[str, Number]
    metrics: dict[str, Number]


def diff(
    first: RunRow, second: RunRow, first_data: Mapping[str, str], second_data: Mapping[str, str]
) -> RunDiff:
    code = _changes(_code(first), _code(second))
    if not (first.is_stored and second.is_stored):
        # A run folder does not tell all that a store knows.
        code = {key: pair for key, pair in code.items() if None not in pair}
    return RunDiff(
        config=_changes(first.params, second.params),
        data=_changes(first_data, second_data),
        code=code,
        best=_pairs(first.best, second.best),
        metrics=_pairs(first.metrics, second.metrics),
    )


def _code(run: RunRow) -> dict[str, str]:
    return {key: text for key, text in run.tags.items() if key.startswith(_CODE)}


def _changes(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, Text]:
    pairs = _pairs(first, second)
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _pairs(
    first: Mapping[str, _Value], second: Mapping[str, _Value]
) -> dict[str, tuple[_Value | None, _Value | None]]:
    return {key: (first.get(key), second.get(key)) for key in sorted({*first, *second})}
