"""The names of metrics and baselines in views."""

from mlxlab.metric_names import plain_name

_TITLES = {
    "average_precision": "average precision",
    "spearman": "Spearman correlation",
    "agreement": "same prediction as the teacher",
}
MAIN_OF_TASK = {"classification": "accuracy", "multi_label": "f1_macro", "regression": "rmse"}
SIDE_METRICS = ("f1_macro", "roc_auc", "perplexity", "r2", "mae", "loss")
_BASELINES = {
    "unigram": "token frequencies",
    "bigram": "counts of token pairs",
    "trigram": "counts of token triples",
}
ROWS = {"valid": "validation", "test": "test", "out_of_fold": "training rows out of fold"}


def title(metric: str) -> str:
    return _TITLES.get(metric, plain_name(metric))


def baseline_name(name: str) -> str:
    """The name of a baseline in a sentence."""
    return _BASELINES.get(name, name.replace("_", " "))
