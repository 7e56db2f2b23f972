"""What differs between two runs: config, data, code, metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from mlxlab.tracking.runs.reader import RunRow

Text = tuple[str | None, str | None]
Number = tuple[float | None, float | None]
_Value = TypeVar("_Value", str, float)

COMMIT = "mlflow.source.git.commit"
_CODE = ("version.", "hardware.")  # prefixes of tags, besides the commit


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
    first_code, second_code = _code(first.tags), _code(second.tags)
    if not (
        first.is_stored and second.is_stored
    ):  # a run folder does not tell all that a store knows
        first_code, second_code = (
            {key: one[key] for key in one if key in other}
            for one, other in ((first_code, second_code), (second_code, first_code))
        )
    return RunDiff(
        config=_changes(_pairs(first.params, second.params)),
        data=_changes(_pairs(first_data, second_data)),
        code=_changes(_pairs(first_code, second_code)),
        best=_pairs(first.best, second.best),
        metrics=_pairs(first.metrics, second.metrics),
    )


def _pairs(
    first: Mapping[str, _Value], second: Mapping[str, _Value]
) -> dict[str, tuple[_Value | None, _Value | None]]:
    return {key: (first.get(key), second.get(key)) for key in sorted({*first, *second})}


def _changes(pairs: dict[str, Text]) -> dict[str, Text]:
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _code(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: tags[key] for key in tags if key.startswith(_CODE) or key in (COMMIT, "git.dirty")}
