"""The names of metrics and baselines in views."""

from mlxlab.metric_names import plain_name

_TITLES = {
    "average_precision": "average precision",
    "spearman": "Spearman correlation",
    "agreement": "same prediction as the teacher",
}
_OF_ONE_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")
_MACRO = ("roc_auc", "average_precision")
_PER_TOKEN = {"loss": "nats per token", "perplexity": "per token"}
MAIN_OF_TASK = {"classification": "accuracy", "multi_label": "f1_macro", "regression": "rmse"}
SIDE_METRICS = ("f1_macro", "roc_auc", "perplexity", "r2", "mae", "loss")
_BASELINES = {  # Those whose name does not say what they do.
    "majority": "majority (the most frequent class)",
    "mean": "mean (of the training values)",
    "unigram": "token frequencies alone (unigram)",
    "bigram": "counts of token pairs (bigram)",
    "trigram": "counts of token triples (trigram)",
}
_SHORT_NAMES = {
    "unigram": "token frequencies",
    "bigram": "counts of token pairs",
    "trigram": "counts of token triples",
}
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


def full_title(metric: str, positive: str, num_classes: int, *, is_text: bool) -> str:
    """A metric with the class that it is of, how it is averaged, or its unit."""
    name = title(metric)
    if is_text and metric in _PER_TOKEN:
        return f"{name} ({_PER_TOKEN[metric]})"
    if metric not in _OF_ONE_CLASS or not num_classes:
        return name
    if positive:
        return f"{name} of {positive}"
    average = "macro" if metric in _MACRO else "weighted"
    return f"{name}, {average} average"
