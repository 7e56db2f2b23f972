"""Sentences below the metrics of a final evaluation: how they came about, and what is wrong with the model."""

from math import isnan

from mlxlab.experiment.final_evaluation.evaluate import FinalEvaluation, SplitResults
from mlxlab.experiment.final_evaluation.files import class_names, count
from mlxlab.experiment.final_evaluation.findings import (
    learned_nothing_sentence,
    never_predicted,
    never_predicted_sentence,
    ranking_text,
)
from mlxlab.experiment.final_evaluation.prediction_bands import prediction_bands
from mlxlab.training.metrics.bootstrap import resample_count
from mlxlab.wording import counted

_FEW_ROWS = 20


def notes(results: FinalEvaluation, best_step: int) -> list[str]:
    """Sentences on how the figures of the final evaluation came about."""
    resamples = min(resample_count(len(each.evaluation.ids)) for each in results.splits)
    lines = [f"Intervals: percentiles of {resamples:,} bootstrap resamples of the rows."]
    if (rows := min(len(each.evaluation.ids) for each in results.splits)) < _FEW_ROWS:
        lines.append(
            f"{counted(rows, 'row')} {'is' if rows == 1 else 'are'} few: a difference may be chance."
        )
    if results.task.kind == "classification":
        if any(isnan(each.metrics["roc_auc"]) for each in results.splits):
            lines.append("ROC AUC needs rows of at least two classes.")
        if any(each.metrics["accuracy"] in (0.0, 1.0) for each in results.splits):
            lines.append("An accuracy of 0 or 1 has the exact binomial interval (Clopper-Pearson).")
        lines.append(_averages(results))
    if not isinstance(results.thresholds, float) and len(results.splits) > 1:
        lines.append(
            "A label of a validation row counts from probability 0.5 on; of a test row from its threshold on."
        )
    if results.out_of_fold is not None:
        lines.append("Out of fold: each training row by models that did not learn from it.")
    if results.step != best_step:
        lines.append(
            f"The best checkpoint cannot be read: these figures are of the last step, {results.step}."
        )
    return lines


def _averages(results: FinalEvaluation) -> str:
    task = results.task
    if task.num_classes > 2:
        return "Precision, recall and F1 are averages weighted by class size; ROC AUC and average precision are not."
    sentence = f"Precision, recall and F1 are of class {class_names(task)[task.positive_class]!r}"
    if isinstance(results.thresholds, float):
        return f"{sentence}."
    return f"{sentence}, which `predict` gives from probability {results.thresholds[0]:.3g} on."


def findings(results: FinalEvaluation) -> list[str]:
    """A line for each thing that is wrong with the model, on the test rows if there are any."""
    last, metric = results.splits[-1], results.main_metric
    baselines = {name: values[metric] for name, values in last.baselines.items()}
    ranking = ranking_text(last.metrics.get("roc_auc"), last.intervals.get("roc_auc"))
    lines = learned_nothing_sentence(metric, last.metrics[metric], baselines, ranking)
    if classes := missed_classes(results, last):
        lines.append(never_predicted_sentence(classes, last.split, len(last.evaluation.ids)))
    return lines


def missed_classes(results: FinalEvaluation, split: SplitResults) -> dict[str, int]:
    """Classes or labels that occur in a split and are never predicted, with their numbers of rows."""
    if results.task.kind == "regression":
        return {}
    return never_predicted(class_names(results.task), count(results, split.evaluation))


def bands_of(results: FinalEvaluation, split: SplitResults) -> tuple[float, float] | None:
    """The two values near which a regression predicts nearly all rows of a split; None without such values."""
    if results.task.kind != "regression":
        return None
    return prediction_bands(split.evaluation.outputs, split.evaluation.targets)
