"""What a comparison is of: the data and the model of its runs, and the settings in which its methods differ."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypedDict

from mlxlab.config.check import read_stored_config
from mlxlab.config.issues import one_line, value_at, walk
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.experiment.manifest import read_manifest
from mlxlab.experiment.reproduction.run_lock import read_lock
from mlxlab.experiment.run_metrics import FILE as METRICS
from mlxlab.experiment.run_metrics import RunMetrics, baseline_values
from mlxlab.experiment.run_report.run_files import read_run_files
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.files.untrusted import read_json

# Keys that change no method.
_PAIRED = ("seed", "data.fold", "data.folds", "name", "tracking", "backend", "hydra", "rerun")
_COMPARED = (
    "model",
    "data",
    "trainer",
)  # parts of the config whose settings are compared though nobody typed them
_FACTS = ("Task", "Data", "Model")  # of the card of a run


class Subject(TypedDict):
    """What the runs have in common, and what differs.

    Attributes:
        trained: the model and the data; several if the methods differ in them.
        facts: task, data and model, where they are equal in all methods.
        differs: by config key the value of each method; null if fewer than two methods have runs.
        baselines: of the data, in the metric of the comparison.
    """

    trained: str
    facts: dict[str, str]
    differs: dict[str, dict[str, str]] | None
    baselines: dict[str, float]


def subject_of(runs: Mapping[str, Sequence[Path]], metric: str, against: str) -> Subject:
    """The subject of methods, by the run folders of each; InputNotFoundError or DataError without a manifest."""
    cards = [training_card(read_run_files(first)) for first, *_ in runs.values()]
    facts = {name: [card.facts.get(name, "") for card in cards] for name in _FACTS}
    return {
        "trained": one_line("; ".join(dict.fromkeys(card.answer for card in cards)), 200),
        "facts": {
            name: texts[0] for name, texts in facts.items() if texts[0] and len({*texts}) == 1
        },
        "differs": _differences(runs) if len(runs) > 1 else None,
        "baselines": mean_baselines(runs[against], metric),
    }


class _Settings(NamedTuple):
    """The settings of a run: overrides by key, options by config group, and the config."""

    overrides: dict[str, str]
    choices: dict[str, str]
    config: dict[str, Any]

    def value(self, key: str) -> str:
        """As text; that of the override where the run folder has no config."""
        value = self.choices.get(key, value_at(self.config, key))
        if value is None and (not self.config or "/" in key):
            value = self.overrides.get(key)
        return "none" if value is None else _text(value)

    def leaves(self) -> list[str]:
        """The keys of the settings in the compared parts of the config."""
        pairs = [
            pair for part in _COMPARED for pair in walk(self.config.get(part), part, lists=False)
        ]
        keys = [
            key
            for key, value in pairs
            if not isinstance(value, dict) and not key.endswith("._target_")
        ]
        return [key for key in keys if _counts(key)]


def _differences(runs: Mapping[str, Sequence[Path]]) -> dict[str, dict[str, str]]:
    """By key the values of each method: of what was typed first, then of what experiments and options bring along."""
    settings = {name: [_read_settings(path) for path in paths] for name, paths in runs.items()}
    all_runs = [run for each in settings.values() for run in each]
    differences: dict[str, dict[str, str]] = {}
    for keys in ([*run.overrides, *run.choices] for run in all_runs):
        differences |= _values_that_differ(
            settings, [key for key in keys if key not in differences]
        )
    if all(
        run.config for run in all_runs
    ):  # an option that differs stands for all that it contains
        options = tuple(
            f"{key.replace('/', '.')}." for key in differences if key in all_runs[0].choices
        )
        leaves = dict.fromkeys(
            key for run in all_runs for key in run.leaves() if not key.startswith(options)
        )
        differences |= _values_that_differ(
            settings, [key for key in leaves if key not in differences]
        )
    return differences


def _values_that_differ(
    settings: Mapping[str, Sequence[_Settings]], keys: Sequence[str]
) -> dict[str, dict[str, str]]:
    values = {
        key: {name: {run.value(key) for run in each} for name, each in settings.items()}
        for key in keys
    }
    return {
        one_line(key, 80): {
            name: one_line(", ".join(sorted(each)), 120) for name, each in used.items()
        }
        for key, used in values.items()
        if len({frozenset(each) for each in used.values()}) > 1
    }


def _read_settings(folder: Path) -> _Settings:
    """Without the overrides that change no method."""
    inputs = read_manifest(folder).get("inputs", {})
    values = {override_name(text): text.partition("=")[2] for text in inputs.get("overrides", [])}
    overrides, choices = (
        {key: text for key, text in each.items() if _counts(key)}
        for each in (values, inputs.get("choices", {}))
    )
    return _Settings(overrides, choices, _read_config(folder))


def _counts(key: str) -> bool:
    return not any(f"{key}.".startswith(f"{each}.") for each in _PAIRED)


def _read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of a run, or else the one for inference; empty if neither can be used."""
    with suppress(UserError):
        return read_lock(folder)["config"]
    with suppress(UserError):
        return read_stored_config(folder / "inference" / "config.yaml")
    return {}


def _text(value: object) -> str:
    """`0.0001` for `1e-4` and `2` for `2.0`, so that equal numbers have equal texts; `none` of an empty list."""
    if value in ([], {}, ""):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def mean_baselines(folders: Sequence[Path], metric: str) -> dict[str, float]:
    """Means over the runs, of the baselines that all of them have."""
    runs: list[dict[str, float]] = []
    for folder in folders:
        with suppress(InputNotFoundError, DataError):
            runs.append(baseline_values(read_json(folder / METRICS, RunMetrics), metric))
    return {
        name: fmean(each[name] for each in runs)
        for name in (runs or [{}])[0]
        if all(name in each for each in runs)
    }
