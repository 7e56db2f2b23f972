"""The results of a run in the terms of its report: which metric counts, on which examples, compared with what."""

from dataclasses import dataclass, replace
from math import isfinite

from mlxlab.config.issues import value_at
from mlxlab.experiment.final_evaluation.findings import (
    has_learned_nothing,
    ranking_text,
    weakest_baseline,
)
from mlxlab.experiment.final_evaluation.verdict import best_baseline, verdict
from mlxlab.experiment.run_metrics import Metrics, baseline_values, interval_text, number
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.metric_names import TEST, VALID, VALID_LOSS, lower_is_better, plain_name

_BITS = f"{VALID}bits_per_byte"
ROWS = {"valid": "validation", "test": "test"}
_BASELINES = {  # those whose name does not say what they do
    "majority": "majority (the most frequent class)",
    "mean": "mean (of the training values)",
    "unigram": "token frequencies alone (unigram)",
    "bigram": "counts of token pairs (bigram)",
    "trigram": "counts of token triples (trigram)",
}


@dataclass(frozen=True)
class Results:
    """What a run reached. Without a final evaluation the values are of the best evaluation so far.

    Attributes:
        metric: by which the run is judged, without its split; "" if nothing is known.
        split: the test rows, if they were evaluated, else the validation rows.
        values: by name, of the split.
    """

    metric: str
    split: str
    values: Metrics
    interval: tuple[float, float] | None
    rows: int | None
    baselines: dict[str, float]  # of the metric
    gain: tuple[float, float] | None  # on the best baseline
    weakest_gain: tuple[float, float] | None = None  # on the weakest one
    roc_auc: tuple[float, float] | None = None  # its interval

    @property
    def value(self) -> float | None:
        return self.values.get(self.metric)

    @property
    def weakest(self) -> str:
        """The weakest baseline, which takes no training: the most frequent class, the mean, token frequencies."""
        return weakest_baseline(self.metric, self.baselines)

    @property
    def ranking(self) -> str:
        """What the ranking of the rows says of a model that is no better than the weakest baseline; "" for nothing."""
        return ranking_text(self.values.get("roc_auc"), self.roc_auc)

    @property
    def learned_nothing(self) -> bool:
        """Whether neither decisions nor ranking are better than those of the weakest baseline."""
        return self.is_no_better and not self.ranking

    @property
    def is_no_better(self) -> bool:
        """Whether the model is no better than the weakest baseline; False if either is not known."""
        return self.value is not None and has_learned_nothing(
            self.metric, self.value, self.baselines
        )

    @property
    def may_be_chance(self) -> bool:
        """Whether the model is no better than the weakest baseline, or not by more than chance."""
        return self.is_no_better or (self.weakest_gain is not None and self.weakest_gain[0] <= 0)

    @property
    def is_clearly_worse(self) -> bool:
        """Whether the best baseline is better by more than chance."""
        return self.gain is not None and self.gain[1] < 0


def results_of(files: RunFiles) -> Results:
    metrics, outcome = files.metrics, files.manifest.get("outcome", {})
    history = files.state["history"] if files.state else None
    best: Metrics = (
        metrics["metrics"]
        if metrics
        else {**history.best_metrics}
        if history
        else outcome.get("final", {})
    )
    split = "test" if metrics and metrics["test"] else "valid"
    values = _of(metrics["test"], TEST) if metrics and split == "test" else _of(best, VALID)
    metric = (metrics and metrics["main_metric"]) or _main_metric(
        values, objective_of(files).removeprefix(VALID)
    )
    if (
        metric == "loss"
        and metrics
        and any(_BITS in each for each in metrics["baselines"].values())
    ):
        metric = (
            "bits_per_byte" if "bits_per_byte" in values else metric
        )  # comparable between tokenizers
    key = f"{split}/{metric}"
    interval = _finite(metrics["intervals"].get(key)) if metrics else None
    rows = (
        metrics.get("rows", {}).get(split)
        if files.is_evaluated and metrics
        else _evaluated_rows(files)
    )
    baselines = baseline_values(metrics, key) if metrics else {}
    roc_auc = _finite(metrics["intervals"].get(f"{split}/roc_auc")) if metrics else None
    results = Results(metric, split, values, interval, rows, baselines, None, roc_auc=roc_auc)
    if metrics is None or not baselines:
        return results
    gains = [
        _finite(metrics.get("gains", {}).get(name, {}).get(key))
        for name in (best_baseline(metric, baselines), results.weakest)
    ]
    return replace(results, gain=gains[0], weakest_gain=gains[1])


def _evaluated_rows(files: RunFiles) -> int | None:
    """Validation rows of an evaluation during the run; None where it took a part of them, or of a language model."""
    is_whole = files.is_labelled and value_at(files.config, "trainer.eval_batches") is None
    return files.facts.get("examples", {}).get("validation") if is_whole else None


def student_and_teacher(files: RunFiles) -> tuple[Metrics, Metrics] | None:
    """Their metrics on the validation data; of the student those of its best evaluation, as everywhere in a report."""
    reference = files.metrics["reference"] if files.metrics else {}
    if files.metrics is None or not {"student", "teacher"} <= reference.keys():
        return None
    last, best = reference["student"], _of(files.metrics["metrics"], VALID)
    return {name: best.get(name, value) for name, value in last.items()}, reference["teacher"]


def _main_metric(values: Metrics, objective: str) -> str:
    return next((name for name in ("accuracy", "f1_macro", "rmse") if name in values), objective)


def _of(metrics: Metrics, prefix: str) -> Metrics:
    return {
        key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)
    }


def _finite(pair: tuple[float | None, float | None] | None) -> tuple[float, float] | None:
    if pair is None or pair[0] is None or pair[1] is None:
        return None
    return pair[0], pair[1]


def baseline_sentence(results: Results) -> str:
    """Whether the model is better than the best baseline; "" where that is not known."""
    if results.gain is None or results.value is None:
        return ""
    named = {_short_name(name): value for name, value in results.baselines.items()}
    sentence = verdict(results.split, results.metric, results.value, named, results.gain)
    return sentence.replace(f": {results.metric} ", f": {plain_name(results.metric)} ", 1)


def baseline_title(name: str, metric: str = "") -> str:
    if name == "majority" and metric in ("loss", "log_loss"):
        return "class frequencies"
    return _BASELINES.get(name, name.replace("_", " "))


def compared_with_best(results: Results) -> str:
    """The same in a few words, for a card."""
    if not results.baselines or results.value is None:
        return ""
    best = best_baseline(results.metric, results.baselines)
    weakest = _short_name(results.weakest)
    if results.is_no_better:
        is_equal = number(results.value) == number(results.baselines[results.weakest])
        text = f"{'no better' if is_equal else 'worse'} than {weakest}"
        if results.learned_nothing:
            return f"Learned nothing: {text}"
        return f"{text[0].upper()}{text[1:]} in {plain_name(results.metric)}"
    if results.may_be_chance:
        return f"Not clearly better than {weakest}"
    sign = -1 if lower_is_better(results.metric) else 1
    gain = sign * (results.value - results.baselines[best])
    low, high = results.gain or (gain, gain)  # without an interval by the value itself
    units = {"loss": " nats per token", "bits_per_byte": " bits per byte"}
    unit = units.get(results.metric, "") if results.weakest == "unigram" else ""
    if low > 0:
        return f"Better than {_short_name(best)} by {shown(gain)}{unit}"
    if high < 0:
        return f"Worse than {_short_name(best)} by {shown(-gain)}{unit}"
    return f"{'No clear difference from' if gain <= 0 else 'Not clearly better than'} {_short_name(best)}"


def gain_sentence(results: Results, *, is_mean: bool = False) -> str:
    """How far the model is from the best baseline, with the interval of that; of means over runs without one."""
    interval = interval_text(results.gain)
    if results.value is None or not results.baselines or not (interval or is_mean):
        return ""
    sign, best = (
        -1 if lower_is_better(results.metric) else 1,
        best_baseline(results.metric, results.baselines),
    )
    gain = f"{sign * (results.value - results.baselines[best]):+z.4f}"
    certainty = "" if is_mean else f", 95 % interval {interval}"
    return f"Difference from {_short_name(best)}: {gain}{certainty} (+ is better)"


def _short_name(baseline: str) -> str:
    names = {"unigram": "token frequencies", "bigram": "bigram counts", "trigram": "trigram counts"}
    return names.get(baseline, baseline.replace("_", " "))


def objective_of(files: RunFiles) -> str:
    """The metric by which the best evaluation is chosen."""
    return files.manifest.get("outcome", {}).get("objective") or str(
        files.config.get("objective", VALID_LOSS)
    )


def first_evaluation(files: RunFiles, metric: str) -> tuple[int, Metrics] | None:
    """Step and values of the first evaluation that is finite, if the run had more than one.

    The values are that of the objective and, where the newest checkpoint has it, that of a metric of the results.
    """
    if files.metrics and "evaluations" in files.metrics:
        evaluations = files.metrics["evaluations"]
    else:
        evaluations = [*files.state["history"].evaluations] if files.state else []
    finite = [(step, value) for step, value in evaluations if value is not None and isfinite(value)]
    if len(finite) < 2:
        return None
    (step, value), key = finite[0], f"{VALID}{metric}"
    logged = dict(files.state["history"].curve).get(step, {}) if files.state else {}
    values: Metrics = {objective_of(files): value}
    return step, values | ({key: logged[key]} if key in logged else {})


def shown(value: float | None) -> str:
    return "not finite" if value is None or not isfinite(value) else number(value)
