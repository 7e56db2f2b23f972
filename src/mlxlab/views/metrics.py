"""The names of metrics and baselines in views."""

from mlxlab.metric_names import plain_name

_TITLES = {
    "average_precision": "average precision",
    "spearman": "Spearman correlation",
    "agreement": "same prediction as the teacher",
}
MAIN_OF_TASK = {"classification": "accuracy", "multi_label": "f1_macro", "regression": "rmse"}
SIDE_METRICS = ("f1_macro", "roc_auc", "perplexity", "r2", "mae", "loss")
_BASELINES = {  # The names of these do not say what they do.
    "majority": "majority (the most frequent class)",
    "mean": "mean (of the training values)",
    "unigram": "token frequencies alone (unigram)",
}
_SHORT_NAMES = {"unigram": "token frequencies"}
ROWS = {"valid": "validation", "test": "test", "out_of_fold": "training rows out of fold"}


def title(metric: str) -> str:
    return _TITLES.get(metric, plain_name(metric))


def baseline_name(name: str) -> str:
    """The name of a baseline in a sentence."""
    return _SHORT_NAMES.get(name, name.replace("_", " "))


def baseline_title(name: str, metric: str = "") -> str:
    if name == "majority" and metric in ("loss", "log_loss"):
        return "class frequencies"
    return _BASELINES.get(name, name.replace("_", " "))
