"""Compares methods by the folders of their runs: their results, and the settings in which they differ."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean, median

from mlxlab.analysis.comparison import Comparison, Evaluation, MethodResults, Subject, compare
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.files.untrusted import refuse_links
from mlxlab.record.attempts import read_now
from mlxlab.record.run_file import FILE
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.nearest import no_such_folder
from mlxlab.terminal.wording import one_line
from mlxlab.views.render import phrase
from mlxlab.views.run_view import RunView
from mlxlab.views.verdict import baseline_values

ACCURACY = "valid/accuracy"
FOLDS = "seed-*-fold-*"  # run folders of a cross-validation
_OF_NO_METHOD = (
    *("name", "tags", "tracking", "cloud", "signals", "checkpointing"),
    *("resume", "resume_policy", "rerun", "trust_folder"),
    *("seed", "data.fold", "data.folds", "backend", "hydra"),
)


def find_runs(path: Path) -> list[Path]:
    """The run folder itself, or all run folders in a folder, as sweeps leave them, or in that of a cross-validation.

    Raises InputNotFoundError without any; NotAllowedError for links.
    """
    refuse_links(path)
    if (path / FILE).is_file():
        return [path]
    runs = sorted(file.parent for file in path.glob(f"*/{FILE}"))
    if runs:
        return runs
    expected = "a run folder, or a folder of run folders"
    folders = sorted({file.parents[1] for file in path.glob(f"*/{FOLDS}/{FILE}")})
    if len(folders) == 1:
        return find_runs(folders[0])
    if path.exists():
        raise InputNotFoundError(f"{path}: expected {expected}")
    raise InputNotFoundError(no_such_folder(path, expected))


def read_finished(folder: Path) -> RunView:
    """A finished run; InputNotFoundError or DataError without one."""
    record = read_now(folder)
    if record.status != "finished":
        raise DataError(f"{folder}: {record.status}; expected a run that is finished")
    return RunView(record, folder)


def check_metric(metric: str, known: Collection[str], where: str) -> None:
    """Raises ConfigError if the runs have metrics, but not this one."""
    if not known or metric in known:
        return
    listed = ", ".join(sorted(known)[:12])
    raise ConfigError(f"metric={metric}: no such metric of {where}; there is {listed}")


def method_results(
    name: str, runs: Sequence[RunView], metric: str, evaluation: Evaluation = "last"
) -> MethodResults:
    """A method's results by seed and fold.

    The speed is the median of the runs' last ones. Parameters and steps are None where the runs differ in them.

    Args:
        metric: for example `valid/accuracy`.
        evaluation: the last one, or the best one by the objective, which was selected on the validation data itself.

    Raises:
        DataError: a run lacks the metric or is a duplicate.
    """
    values: dict[str, float | None] = {}
    for run in runs:
        key = run_key(run)
        if key in values:
            raise DataError(f"{name}: two runs of {key}, the second is {run.folder}")
        values[key] = metric_of(run, metric, evaluation)
    records = [run.record for run in runs]
    speeds = [record.training.speed for record in records if record.training.speed]
    return MethodResults(
        name,
        values,
        parameters=_common([record.model.parameters for record in records]),
        speed=median(speeds) if speeds else None,
        steps=_common([record.training.steps for record in records]),
        folds=tuple(sorted({record.data.folds for record in records if record.data.folds})),
    )


def run_key(run: RunView) -> str:
    """What runs of two methods have in common that are a pair: `seed 0 fold 1`."""
    key = f"seed {run.record.seed}"
    if run.record.data.folds:
        key += f" fold {run.record.data.fold}"
    return key


def _common(numbers: list[int]) -> int | None:
    """The number, where all runs have the same."""
    if len({*numbers}) == 1:
        return numbers[0]
    return None


def metric_of(run: RunView, metric: str, evaluation: Evaluation) -> float:
    """A metric of a run; DataError without it."""
    training = run.record.training
    metrics = training.final
    if evaluation == "best":
        # A run that was evaluated at its end has all metrics, others the objective.
        metrics = run.record.evaluation.keyed_metrics("valid")
        if training.objective:
            metrics[training.objective] = training.best
    value = metrics.get(metric)
    if value is None:
        known = ", ".join(sorted(metrics)) or "none"
        raise DataError(
            f"{run.folder}: expected {metric} of the {evaluation} evaluation, got {known}"
        )
    return value


def compare_folders(
    folders: Mapping[str, Sequence[Path]],
    metric: str | None,
    baseline: str,
    evaluation: Evaluation,
) -> Comparison:
    """Compares methods, each of which has run folders, or folders of them.

    Raises:
        ConfigError: no run has the metric.
        InputNotFoundError, DataError: as `find_runs`, `read_finished` and `method_results`.
    """
    methods: dict[str, list[RunView]] = {}
    for name, paths in folders.items():
        try:
            runs = chain.from_iterable(map(find_runs, paths))
            methods[name] = [read_finished(run) for run in runs]
        except InputNotFoundError as error:
            raise InputNotFoundError(f"{name}={error}") from None
    first = methods[baseline][0].record.training
    if metric is None:
        metric = ACCURACY
        if metric not in first.final and first.objective:
            metric = first.objective
    else:
        known = set[str]()
        for run in chain.from_iterable(methods.values()):
            known.update(run.record.training.final, [run.record.training.objective])
        check_metric(metric, known - {""}, "the runs")
    results = [method_results(name, each, metric, evaluation) for name, each in methods.items()]
    subject = subject_of(methods, metric, methods[baseline])
    return compare(metric, results, baseline, evaluation, subject)


def comparison_folder(folders: Mapping[str, Sequence[Path]], comparison: Comparison) -> Path:
    """The folder of a comparison: another one for other runs or settings, the same when it is repeated."""
    paths = {name: [str(path.absolute()) for path in paths] for name, paths in folders.items()}
    settings = [comparison.against, comparison.metric, comparison.evaluation]
    return output_folder(Path("outputs/comparisons"), "-vs-".join(folders), [paths, settings])


def subject_of(
    methods: Mapping[str, Sequence[RunView]], metric: str, baseline_runs: Sequence[RunView]
) -> Subject:
    """The subject of methods, by the runs of each."""
    first_runs = [runs[0] for runs in methods.values()]
    answers = dict.fromkeys(phrase("answer", run) for run in first_runs)
    return Subject(
        trained=one_line("; ".join(answers), 200),
        differs=_differences(methods) if len(methods) > 1 else None,
        baselines=mean_baselines(baseline_runs, metric),
    )


def _differences(methods: Mapping[str, Sequence[RunView]]) -> dict[str, dict[str, str]]:
    """The values of each method by key. An option that differs stands for all that it contains."""
    settings = {name: list(map(_settings, runs)) for name, runs in methods.items()}
    differences: dict[str, dict[str, str]] = {}
    options: tuple[str, ...] = ()
    for key in dict.fromkeys(chain.from_iterable(chain.from_iterable(settings.values()))):
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
    text = str(value)
    if not isinstance(value, str):
        text = json.dumps(value, sort_keys=True, default=str)
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
    means: dict[str, float] = {}
    if not values:
        return means
    for name in values[0]:
        if all(name in each for each in values):
            means[name] = fmean(each[name] for each in values)
    return means


def output_folder(parent: Path, label: str, settings: object) -> Path:
    """A folder below `parent`, of the project: other settings have another one, the same when they are repeated."""
    text = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = re.sub(r"[^a-zA-Z0-9_]+", "-", label).strip("-")[:60]
    return project_root() / parent / f"{name}-{digest}"
