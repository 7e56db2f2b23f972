"""What a comparison is of: the data and the model of its runs, and the settings in which its methods differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import TypedDict

from mlxlab.dotted_keys import override_name, value_at, walk
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.collect_record import collect_record
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import RunRecord
from mlxlab.views.render import phrase, run_facts
from mlxlab.views.run_view import RunView
from mlxlab.views.verdict import baseline_values
from mlxlab.wording import one_line

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


def no_subject() -> Subject:
    """The subject of methods without run folders."""
    return {"trained": "", "facts": {}, "differs": None, "baselines": {}}


def subject_of(runs: Mapping[str, Sequence[Path]], metric: str, against: str) -> Subject:
    """The subject of methods, by the run folders of each; InputNotFoundError or DataError without a record."""
    records = {name: [collect_record(path) for path in paths] for name, paths in runs.items()}
    views = [RunView(records[name][0], paths[0]) for name, paths in runs.items()]
    known = [run_facts(view) for view in views]
    facts = {}
    for name in _FACTS:
        texts = {each.get(name, "") for each in known}
        if len(texts) == 1 and texts != {""}:
            facts[name] = known[0][name]
    answers = dict.fromkeys(phrase("answer", view) for view in views)
    return {
        "trained": one_line("; ".join(answers), 200),
        "facts": facts,
        "differs": _differences(records) if len(runs) > 1 else None,
        "baselines": mean_baselines(runs[against], metric),
    }


def _differences(methods: Mapping[str, Sequence[RunRecord]]) -> dict[str, dict[str, str]]:
    """The values of each method by key: of what was typed first, then of what experiments and options bring along."""
    runs = [run for each in methods.values() for run in each]
    typed = dict.fromkeys(key for run in runs for key in [*_overrides(run), *run.command.choices])
    differences = _values_that_differ(methods, typed)
    if all(run.config for run in runs):
        # An option that differs stands for all that it contains.
        options = [key for key in differences if key in runs[0].command.choices]
        inside = tuple(f"{key.replace('/', '.')}." for key in options)
        leaves = dict.fromkeys(key for run in runs for key in _leaves(run))
        others = [key for key in leaves if key not in differences and not key.startswith(inside)]
        differences |= _values_that_differ(methods, others)
    return differences


def _values_that_differ(
    methods: Mapping[str, Sequence[RunRecord]], keys: Iterable[str]
) -> dict[str, dict[str, str]]:
    differences = {}
    for key in filter(_counts, keys):
        values = {}
        for name, runs in methods.items():
            texts = sorted({_value(run, key) for run in runs})
            values[name] = one_line(", ".join(texts), 120)
        if len({*values.values()}) > 1:
            differences[one_line(key, 80)] = values
    return differences


def _overrides(run: RunRecord) -> dict[str, str]:
    return {override_name(text): text.partition("=")[2] for text in run.command.overrides}


def _value(run: RunRecord, key: str) -> str:
    """The text of a value, from the override where the run folder has no config."""
    value = run.command.choices.get(key, value_at(run.config, key))
    if value is None and (not run.config or "/" in key):
        value = _overrides(run).get(key)
    return "none" if value is None else _text(value)


def _leaves(run: RunRecord) -> list[str]:
    """The keys of the settings in the compared parts of the config."""
    keys = []
    for part in _COMPARED:
        for key, value in walk(run.config.get(part), part, lists=False):
            if not isinstance(value, dict) and not key.endswith("._target_"):
                keys.append(key)
    return keys


def _counts(key: str) -> bool:
    return not any(f"{key}.".startswith(f"{each}.") for each in _PAIRED)


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
    split, _, name = metric.partition("/")
    for folder in folders:
        with suppress(InputNotFoundError, DataError):
            results = read_run(folder).evaluation.results
            runs += [baseline_values(each, name) for each in results if each.split == split]
    return {
        name: fmean(each[name] for each in runs)
        for name in (runs or [{}])[0]
        if all(name in each for each in runs)
    }
