"""Baselines on the words of texts: TF-IDF with a linear model and, reduced to fewer features, gradient boosting."""

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Baseline
from mlxlab.data.labelled import baselines
from mlxlab.data.labelled.baselines import SEED, Matrix
from mlxlab.wording import counted

MAX_ROWS = 20_000  # that are fitted
MAX_CHARACTERS = 30_000_000  # of the texts that are fitted
MAX_WEIGHTS = 2_000_000  # features x outputs; L-BFGS holds 25 numbers of 8 bytes for each
STRENGTHS = (1.0, 10.0)  # see `new_linear_model`; the first is scikit-learn's default
MAX_COMPONENTS = 100  # of the latent semantic analysis
MAX_REDUCED = 20_000  # features that it reads
MAX_CELLS = 5_000_000  # rows that are fitted x components x outputs, of gradient boosting
MAX_TREES = 1_000  # of all outputs

logger = logging.getLogger(__name__)
Reduce = Callable[[Matrix], np.ndarray]  # TF-IDF (N, F) -> (N, K)


def tfidf_baselines(
    texts: Callable[[np.ndarray], Sequence[str]],
    split: Sequence[np.ndarray],
    train_targets: np.ndarray,
    task: Task,
    tuned: bool = True,
    boosting: bool = True,
) -> list[Baseline]:
    """TF-IDF of words and pairs of words with logistic (`Ridge` for numbers) regression, and with gradient boosting.

    Args:
        texts: the texts of rows by number.
        split: numbers of the training, validation and test rows.
        train_targets: as in a `Batch`.
        tuned: sublinear term frequencies, and the better of `STRENGTHS`; otherwise scikit-learn's defaults.
        boosting: gradient boosting as well, on a latent semantic analysis of the same features.
    """
    train, valid, test = split
    name = f"tfidf_{baselines.linear_name(task)}"
    rows = baselines.sample_rows(name, train_targets, task, MAX_ROWS, baselines.MAX_OUTPUTS)
    if rows is None:
        return []
    rows, train_texts = _within_characters(name, lambda sampled: texts(train[sampled]), rows)
    from sklearn.feature_extraction.text import TfidfVectorizer

    max_features = MAX_WEIGHTS // task.num_classes
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=max_features, sublinear_tf=tuned)
    try:
        features = vectorizer.fit_transform(train_texts)
    except ValueError:  # an empty vocabulary
        logger.info(f"baseline {name}: skipped, no training text has a word of two characters")
        return []
    if features.shape[1] == max_features:
        logger.info(f"baseline {name}: reads the {max_features} most frequent words and pairs")
    targets = train_targets[rows]
    with baselines.fitting(name):
        strength = best_strength(features, targets, task) if tuned else STRENGTHS[0]
        models = {
            name: baselines.fit(baselines.new_linear_model(task, strength), features, targets, task)
        }
    trees = _fit_boosted_trees(features, targets, task) if boosting else None
    if trees is not None:
        models["gradient_boosting"] = trees
    return baselines.predict(
        models, lambda chunk: vectorizer.transform(texts(chunk)), (valid, test), task
    )


def best_strength(features: Matrix, targets: np.ndarray, task: Task) -> float:
    """The one of `STRENGTHS` with the least squared error (Brier score) on a random fifth of the rows."""
    order = np.random.default_rng(SEED).permutation(len(targets))
    held_out, rest = np.split(order, [len(order) // 5])
    if not len(held_out):
        return STRENGTHS[0]
    expected = np.eye(task.num_classes)[targets] if task.kind == "classification" else targets
    expected = baselines.to_data_units(expected[held_out], task)

    def squared_error(strength: float) -> float:
        new_model = baselines.new_linear_model(task, strength, tolerance=1e-4)
        predict = baselines.fit(new_model, features[rest], targets[rest], task)
        return float(np.square(predict(features[held_out]) - expected).mean())

    return min(STRENGTHS, key=squared_error)


def _fit_boosted_trees(
    features: Matrix, targets: np.ndarray, task: Task
) -> baselines.Predict | None:
    """Predicts from TF-IDF features; None, with a line in the log, where there are too many outputs."""
    name, num_components = "gradient_boosting", min(MAX_COMPONENTS, *features.shape)
    max_rows = MAX_CELLS // (num_components * task.num_classes)
    rows = baselines.sample_rows(name, targets, task, max_rows, baselines.MAX_TREE_OUTPUTS)
    if rows is None:
        return None
    max_trees = min(100, MAX_TREES // task.num_classes)
    with baselines.fitting(name):
        reduce = fit_reduction(features, num_components)
        predict = baselines.fit(
            lambda: baselines.new_boosted_trees(task, max_trees=max_trees),
            reduce(features[rows]),
            targets[rows],
            task,
        )
    return lambda chunk: predict(reduce(chunk))


def fit_reduction(features: Matrix, num_components: int) -> Reduce:
    """Latent semantic analysis of the most frequent features; the features themselves where they are as few."""
    if features.shape[1] <= num_components:
        return lambda rows: rows.toarray()
    from sklearn.decomposition import TruncatedSVD

    num_rows = np.bincount(features.indices, minlength=features.shape[1])  # with each feature
    frequent = np.sort(np.argsort(-num_rows, kind="stable")[:MAX_REDUCED])
    reduction = TruncatedSVD(num_components, random_state=SEED).fit(features[:, frequent])
    return lambda rows: reduction.transform(rows[:, frequent])


def _within_characters(
    name: str, texts: Callable[[np.ndarray], Sequence[str]], rows: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """As many rows, drawn at random, as have `MAX_CHARACTERS`, ascending, with their texts."""
    order = np.random.default_rng(SEED).permutation(rows)
    sample: dict[int, str] = {}
    characters = 0
    for row, text in _by_row(texts, order):
        characters += len(text)
        if characters > MAX_CHARACTERS and sample:
            limit = f"which have {MAX_CHARACTERS:,} characters"
            logger.info(
                f"baseline {name}: fitted on {counted(len(sample), 'training text')}, drawn at random, {limit}"
            )
            break
        sample[row] = text
    fitted = np.sort(np.fromiter(sample, np.int64))
    return fitted, [sample[row] for row in fitted.tolist()]


def _by_row(
    texts: Callable[[np.ndarray], Sequence[str]], rows: np.ndarray
) -> Iterator[tuple[int, str]]:
    for start in range(0, len(rows), baselines.CHUNK):
        chunk = rows[start : start + baselines.CHUNK]
        yield from zip(chunk.tolist(), texts(chunk), strict=True)
