"""The names of metrics in a report, which say how each is averaged over the classes."""

from mlxlab.experiment.run_report.run_files import RunFiles

_PLAIN = {
    "balanced_accuracy": "balanced accuracy (mean recall of the classes)",
    "f1_macro": "F1, macro average",
    "f1_micro": "F1, micro average",
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "calibration_error": "expected calibration error",
    "mae": "mean absolute error",
    "rmse": "root mean squared error (RMSE)",
    "agreement": "same class as the teacher, share (last weights)",
    "ms per batch": "evaluation, time per batch (ms)",
    "r2": "R2 (share of the variance explained)",
    "spearman": "Spearman rank correlation",
}
_OF_A_CLASS = (
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
)  # These are of the positive one of two classes.
_MACRO = ("roc_auc", "average_precision")  # the others of them are weighted


def metric_title(name: str, files: RunFiles) -> str:
    """The name of a metric without its split."""
    facts, title = files.facts, _PLAIN.get(name, name.replace("_", " "))
    if name not in _OF_A_CLASS or not (count := facts.get("num_classes", 0)):
        return title
    if count == 2 and facts.get("task") == "classification":
        return f"{title} of {facts.get('positive_class', 'class 1')}"
    return f"{title}, {'macro' if name in _MACRO else 'weighted'} average"


def unit_of(metric: str, files: RunFiles) -> str:
    """Of the metrics of language models, which are means over tokens; else ""."""
    units = {"loss": " nats per token", "perplexity": " per token"}
    return units.get(metric, "") if files.facts.get("task") == "language_modelling" else ""
