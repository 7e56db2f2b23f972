"""What a comparison is of: the data and the model of its runs, and the settings in which its methods differ."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import TypedDict

from mlxlab.config.issues import one_line, value_at
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.manifest import read_manifest
from mlxlab.experiment.run_metrics import FILE as METRICS
from mlxlab.experiment.run_metrics import RunMetrics, baseline_values
from mlxlab.experiment.run_report.run_files import RunFiles, read_run_files
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.files.untrusted import read_json

_PAIRED = ("seed", "data.fold", "data.folds", "name", "tracking", "backend", "hydra")  # keys that change no method
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
    files = {name: [read_run_files(path) for path in paths[:1]] for name, paths in runs.items()}
    firsts = [each for [each] in files.values()]
    cards = [training_card(each) for each in firsts]
    facts = {name: [card.facts.get(name, "") for card in cards] for name in _FACTS}
    return {
        "trained": one_line("; ".join(dict.fromkeys(card.answer for card in cards)), 200),
        "facts": {name: texts[0] for name, texts in facts.items() if texts[0] and len({*texts}) == 1},
        "differs": _differences({name: first for name, [first] in files.items()}, runs) if len(runs) > 1 else None,
        "baselines": mean_baselines(runs[against], metric),
    }


def _differences(firsts: Mapping[str, RunFiles], runs: Mapping[str, Sequence[Path]]) -> dict[str, dict[str, str]]:
    """By key the values of each method; those of keys that a run does not override are of the first run's config."""
    overrides = {
        name: [read_manifest(path).get("inputs", {}).get("overrides", []) for path in paths]
        for name, paths in runs.items()
    }
    typed = {name: [_by_key(texts) for texts in each] for name, each in overrides.items()}
    keys = dict.fromkeys(key for each in typed.values() for values in each for key in values)
    differences = {}
    for key in keys:
        used = {
            name: {_number(values[key] if key in values else _configured(firsts[name], key)) for values in each}
            for name, each in typed.items()
        }
        if len({frozenset(each) for each in used.values()}) > 1:
            differences[one_line(key, 80)] = {
                name: one_line(", ".join(sorted(each)), 120) for name, each in used.items()
            }
    return differences


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    """Without those that change no method."""
    values = {override_name(text): text.partition("=")[2] for text in overrides}
    return {key: text for key, text in values.items() if not any(f"{key}.".startswith(f"{each}.") for each in _PAIRED)}


def _configured(files: RunFiles, key: str) -> str:
    choices = files.manifest.get("inputs", {}).get("choices", {})
    value = choices.get(key, value_at(files.config, key))
    return "none" if value is None else str(value)


def _number(text: str) -> str:
    """`0.0001` for `1e-4`, so that both are equal."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def mean_baselines(folders: Sequence[Path], metric: str) -> dict[str, float]:
    """Means over the runs, of the baselines that all of them have."""
    runs: list[dict[str, float]] = []
    for folder in folders:
        with suppress(InputNotFoundError, DataError):
            runs.append(baseline_values(read_json(folder / METRICS, RunMetrics), metric))
    return {
        name: fmean(each[name] for each in runs) for name in (runs or [{}])[0] if all(name in each for each in runs)
    }
