"""What a comparison is of: the data and the model of its runs, and the settings in which its methods differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from mlxlab.analysis.comparison import Subject
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.wording import one_line
from mlxlab.views.render import phrase, run_facts
from mlxlab.views.run_view import RunView
from mlxlab.views.verdict import baseline_values

WITHOUT_EFFECT = (  # keys that do not change the results of a run
    *("name", "tags", "tracking", "cloud", "signals", "checkpointing"),
    *("resume", "resume_policy", "rerun", "trust_folder"),
)
_OF_NO_METHOD = (*WITHOUT_EFFECT, "seed", "data.fold", "data.folds", "backend", "hydra")
_FACTS = ("Task", "Data", "Model")  # facts on the card of a run


def subject_of(
    methods: Mapping[str, Sequence[RunView]], metric: str, baseline_runs: Sequence[RunView]
) -> Subject:
    """The subject of methods, by the runs of each."""
    first_runs = [runs[0] for runs in methods.values()]
    known = [run_facts(run) for run in first_runs]
    facts = {}
    for name in _FACTS:
        texts = {each.get(name, "") for each in known}
        if len(texts) == 1 and texts != {""}:
            facts[name] = known[0][name]
    answers = dict.fromkeys(phrase("answer", run) for run in first_runs)
    return Subject(
        trained=one_line("; ".join(answers), 200),
        facts=facts,
        differs=_differences(methods) if len(methods) > 1 else None,
        baselines=mean_baselines(baseline_runs, metric),
    )


def _differences(methods: Mapping[str, Sequence[RunView]]) -> dict[str, dict[str, str]]:
    """The values of each method by key. An option that differs stands for all that it contains."""
    settings = {name: [_settings(run) for run in runs] for name, runs in methods.items()}
    differences: dict[str, dict[str, str]] = {}
    options: tuple[str, ...] = ()
    for key in dict.fromkeys(key for runs in settings.values() for run in runs for key in run):
        if key.startswith(options):
            continue
        values = {}
        for name, runs in settings.items():
            texts = sorted({run.get(key, "none") for run in runs})
            values[name] = one_line(", ".join(texts), 120)
        if len({*values.values()}) > 1:
            differences[one_line(key, 80)] = values
            options = (*options, f"{key.replace('/', '.')}.")
    return differences


def _settings(run: RunView) -> dict[str, str]:
    """The options and then the values of the config, as far as they decide about a method."""
    settings = dict(run.record.command.choices)
    for key, value in walk(run.record.config, lists=False):
        if not isinstance(value, dict) and not key.endswith("._target_"):
            settings[key] = _text(value)
    return {key: text for key, text in settings.items() if _has_effect(key)}


def _has_effect(key: str) -> bool:
    return not any(f"{key}.".startswith((f"{each}.", f"{each}/")) for each in _OF_NO_METHOD)


def _text(value: object) -> str:
    """`2` for `2.0`, so that equal numbers have equal texts; `none` of an empty list."""
    if value in (None, [], {}, ""):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def mean_baselines(runs: Iterable[RunView], metric: str) -> dict[str, float]:
    """Means over the runs, of the baselines that all of them have."""
    split, _, name = metric.partition("/")
    values = []
    for run in runs:
        values += [baseline_values(each, name) for each in run.results if each.split == split]
    return common_means(values)


def common_means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means of what all have."""
    means = {}
    for name in values[0] if values else ():
        if all(name in each for each in values):
            means[name] = fmean(each[name] for each in values)
    return means
