"""The names of metrics and baselines in views."""

from mlxlab.schema.metric_names import plain_name

_TITLES = {
    "average_precision": "average precision",
    "calibration_error": "expected calibration error",
    "spearman": "Spearman correlation",
    "agreement": "same prediction as the teacher",
}
MAIN_OF_TASK = {"classification": "accuracy", "multi_label": "f1_macro", "regression": "rmse"}
SIDE_METRICS = ("f1_macro", "roc_auc", "perplexity", "r2", "mae", "loss")
_BASELINES = {
    "majority": "majority class",
    "mean": "training mean",
    "unigram": "unigram model",
    "bigram": "bigram model",
    "trigram": "trigram model",
    "tfidf_logistic_regression": "TF-IDF + logistic regression",
    "tfidf_linear_svm": "TF-IDF + linear SVM",
    "tfidf_ridge_regression": "TF-IDF + ridge",
    "tfidf_same_sentences": "TF-IDF + linear model on the same sentences",
    "female_rule": "all women survive",
}
ROWS = {"valid": "validation", "test": "test", "out_of_fold": "out-of-fold training"}


def title(metric: str) -> str:
    return _TITLES.get(metric, plain_name(metric))


def baseline_name(name: str) -> str:
    """The name of a baseline in a sentence."""
    return _BASELINES.get(name, name.replace("_", " "))
