"""A column of texts as numbers: what linear models of it say of the target, and its main directions.

The models are support vector machines on TF-IDF (Joachims 1998), on the vectors of a pretrained encoder, and on both.
The directions are those of latent semantic analysis (Deerwester et al. 1990).

Shapes: N rows, U different texts, V n-grams, E numbers of a vector, F = V + E features, D numbers.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product, starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlxlab.data.batch import TaskKind
from mlxlab.data.labelled.split import fold_numbers
from mlxlab.data.labelled.types import TypedColumn
from mlxlab.data.rng import Stream
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.untrusted import read_bytes
from mlxlab.models.cells.vectors import MAX_SIZE, Embed

FILE = "text_readers.safetensors"
WORDS = (1, 2)  # words of an n-gram
CHARACTERS = (2, 4)  # characters of an n-gram, within words
SLOTS = 2**18  # into which the n-grams of words are hashed, and those of characters
MAX_NGRAMS = 2**16  # the most frequent ones of a column
MAX_LEARNED = 20_000  # texts that the models learn from
MAX_BYTES = 2**26  # more than a reader has with all n-grams, models and directions
MAX_CHARACTERS = 20_000  # the rest of a text is not read
BLOCK = 2_000  # texts that are counted at once
MAX_DIRECTIONS = 32
TEXTS_PER_DIRECTION = 20
MAX_MODELS = 50  # classes or labels; with more of them there are directions alone
FOLDS = (5, 20)  # The fewer the texts, the more of them a model must learn from.
TEXTS_OF_ALL_FOLDS = 5_000
STRENGTH = 1.0  # C of the support vector machines

Matrix = Any  # sparse rows of scipy


class TextReader(NamedTuple):
    """Texts -> numbers (N, D)."""

    slots: np.ndarray  # (V,) int32 of the n-grams, ascending
    rarity: np.ndarray  # (V,) float32: inverse document frequency
    weight: np.ndarray  # (F, D) float32
    bias: np.ndarray  # (D,) float32

    @property
    def vector_size(self) -> int:
        """E: 0 for a reader of n-grams alone."""
        return len(self.weight) - len(self.slots)

    def __call__(self, texts: Sequence[str], embed: Embed | None = None) -> np.ndarray:
        """The numbers of some texts; `embed` is needed if `vector_size` is not 0."""
        parts = [np.zeros((0, len(self.bias)), np.float32)]
        for start in range(0, len(texts), BLOCK):
            features = self.features(texts[start : start + BLOCK], embed)
            parts.append(features @ self.weight + self.bias)
        return np.concatenate(parts).astype(np.float32)

    def features(self, texts: Sequence[str], embed: Embed | None = None) -> Matrix:
        """(N, F): TF-IDF of words and of characters, and the vectors of the texts, each of length 1."""
        import scipy.sparse as sp
        from sklearn.preprocessing import normalize

        counts = _count(texts)[:, self.slots]
        counts.data = (1 + np.log(counts.data)) * self.rarity[counts.indices]
        num_words = int(np.searchsorted(self.slots, SLOTS))
        parts = [normalize(counts[:, :num_words]), normalize(counts[:, num_words:])]
        if embed is not None:
            parts.append(sp.csr_matrix(embed(texts)))
        return sp.hstack(parts, format="csr", dtype=np.float32)


class Margin(NamedTuple):
    """Names the model that a number is the margin of: the one of an output, by a group of `_groups`."""

    group: int
    output: int


class FittedReader(NamedTuple):
    """A reader, and what it says of the texts that it is fitted to.

    Args:
        numbers: (U, D), each by models that did not learn from the text.
        margins: what the first numbers are.
    """

    reader: TextReader
    numbers: np.ndarray
    margins: Sequence[Margin]


def fit_reader(
    column: TypedColumn,
    targets: np.ndarray,
    kind: TaskKind,
    num_classes: int,
    seed: int,
    embed: Embed | None = None,
) -> FittedReader | None:
    """Fits a reader to the training rows; None where the texts have no n-grams.

    Args:
        column: of N rows with U texts.
        targets: as in a `Batch`.
        embed: the pretrained encoder, if there is one.
    """
    texts = column.values
    rng = np.random.default_rng(seed)
    learned = np.sort(rng.permutation(len(texts))[:MAX_LEARNED])
    learned_texts = [texts[index] for index in learned]
    empty = _choose_ngrams(learned_texts)
    if not len(empty.slots):
        return None
    features = empty.features(learned_texts, embed)
    groups = _groups(len(empty.slots), features.shape[1])

    # Rows that the models learn from, with the number of their text among the learned ones.
    numbers_of = np.full(len(texts) + 1, -1)
    numbers_of[learned] = np.arange(len(learned))
    of_row = numbers_of[column.codes]
    outputs = _outputs(kind, num_classes)
    is_learned = of_row >= 0
    of_row = of_row[is_learned]
    wanted = _wanted(targets, kind, outputs)[is_learned]
    weight, bias = _fit_models(features[of_row], wanted, kind, groups)
    directions = _directions(features, groups)
    reader = empty._replace(
        weight=np.concatenate([weight, directions], axis=1),
        bias=np.concatenate([bias, np.zeros(directions.shape[1], np.float32)]),
    )

    numbers = reader(texts, embed)
    num_folds = int(np.clip(TEXTS_OF_ALL_FOLDS // len(learned), *FOLDS))
    # Each fold has equally many texts of every target. Otherwise its models would say less of a target, the more held-out
    # texts have it, and who learns from that would learn the contrary.
    _, codes = np.unique(targets[is_learned], axis=0, return_inverse=True)
    _, first = np.unique(of_row, return_index=True)
    strata = codes.reshape(-1)[first]
    folds = fold_numbers(np.arange(len(learned)), strata, num_folds, seed, Stream.FOLDS)
    for fold in range(num_folds):
        is_held_out = folds == fold
        known = ~is_held_out[of_row]
        weight, bias = _fit_models(features[of_row[known]], wanted[known], kind, groups)
        numbers[learned[is_held_out], : len(bias)] = features[is_held_out] @ weight + bias
    margins = list(starmap(Margin, product(range(len(groups)), outputs)))
    return FittedReader(reader, numbers, margins)


def save_readers(folder: Path, readers: Mapping[str, TextReader]) -> None:
    """Writes the readers of columns by name; no file without one."""
    if not readers:
        return
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    for name, reader in readers.items():
        arrays |= {f"{field}.{name}": array for field, array in reader._asdict().items()}
    write_atomic(folder / FILE, save(arrays))


def load_readers(folder: Path, names: Sequence[str]) -> dict[str, TextReader]:
    """The readers of these columns; InputNotFoundError or DataError if `save_readers` did not write them."""
    if not names:
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / FILE
    data = read_bytes(path, max_bytes=MAX_BYTES * len(names))
    try:
        arrays = load(data)
        readers = {}
        for name in names:
            fields = [arrays[f"{field}.{name}"] for field in TextReader._fields]
            readers[name] = TextReader(*fields)
        return readers
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{path}: expected the readers of {', '.join(names)}: {error}") from None


def is_consistent(reader: TextReader) -> bool:
    """Whether `fit_reader` could have returned the arrays."""
    slots, _, weight, bias = reader
    shapes = [each.shape for each in reader]
    expected = [(slots.size,), (slots.size,), (*weight.shape[:1], bias.size), (bias.size,)]
    types = [each.dtype for each in reader]
    if shapes != expected or types != [np.int32, np.float32, np.float32, np.float32]:
        return False
    if not (0 < slots.size <= MAX_NGRAMS and 0 <= reader.vector_size <= MAX_SIZE):
        return False
    is_ascending = (np.diff(slots) > 0).all() and slots[0] >= 0 and slots[-1] < 2 * SLOTS
    return bool(is_ascending) and all(np.isfinite(each).all() for each in reader)


def _count(texts: Sequence[str]) -> Matrix:
    """(N, 2 SLOTS): how often each n-gram of words occurs, then of characters."""
    import scipy.sparse as sp
    from sklearn.feature_extraction.text import HashingVectorizer

    new = partial(
        HashingVectorizer, n_features=SLOTS, alternate_sign=False, norm=None, dtype=np.float32
    )
    words = new(ngram_range=WORDS, token_pattern=r"\b\w+\b")
    characters = new(analyzer="char_wb", ngram_range=CHARACTERS)
    shortened = [text[:MAX_CHARACTERS] for text in texts]
    return sp.hstack([words.transform(shortened), characters.transform(shortened)], format="csr")


def _choose_ngrams(texts: Sequence[str]) -> TextReader:
    """The n-grams to read, without weights."""
    frequency = np.zeros(2 * SLOTS, np.int64)
    for start in range(0, len(texts), BLOCK):
        counts = _count(texts[start : start + BLOCK])
        frequency += np.bincount(counts.indices, minlength=2 * SLOTS)
    most = np.argsort(-frequency, kind="stable")[:MAX_NGRAMS]
    slots = np.sort(most[frequency[most] > 0]).astype(np.int32)
    rarity = np.log((1 + len(texts)) / (1 + frequency[slots])) + 1
    no_weight = np.zeros((len(slots), 0), np.float32)
    return TextReader(slots, rarity.astype(np.float32), no_weight, np.zeros(0, np.float32))


def _outputs(kind: TaskKind, num_classes: int) -> Sequence[int]:
    """The outputs that have a model: of two classes the second one."""
    if num_classes > MAX_MODELS:
        return []
    if kind == "classification" and num_classes == 2:
        return [1]
    return range(num_classes)


def _wanted(targets: np.ndarray, kind: TaskKind, outputs: Sequence[int]) -> np.ndarray:
    """(N, M) what the models learn: 1 or -1 for a class or label, or the number."""
    if kind == "regression":
        return targets[:, None]
    if kind == "classification":
        holds = targets[:, None] == np.array(outputs, np.int64)
    else:
        holds = targets[:, list(outputs)] > 0
    return np.where(holds, 1, -1)


def _groups(num_ngrams: int, num_features: int) -> list[slice]:
    """The features that models read: n-grams, and with vectors these, and both."""
    ngrams = slice(0, num_ngrams)
    if num_features == num_ngrams:
        return [ngrams]
    return [ngrams, slice(num_ngrams, num_features), slice(0, num_features)]


def _fit_models(
    features: Matrix, wanted: np.ndarray, kind: TaskKind, groups: Sequence[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (F, M) and biases (M,) of linear models: of each group one for each column."""
    from sklearn.linear_model import Ridge
    from sklearn.svm import LinearSVC

    weight = np.zeros((features.shape[1], len(groups), wanted.shape[1]), np.float32)
    bias = np.zeros(weight.shape[1:], np.float32)
    for group, columns in enumerate(groups):
        part = features[:, columns]
        for output, column in enumerate(wanted.T):
            if column.min() == column.max():
                bias[group, output] = column[0]
                continue
            model = LinearSVC(C=STRENGTH, random_state=0)
            if kind == "regression":
                model = Ridge(solver="sparse_cg", random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # A fit that stops early is good enough.
                model.fit(part, column)
            weight[columns, group, output] = np.ravel(model.coef_)
            bias[group, output] = np.ravel(model.intercept_)[0]
    return weight.reshape(len(weight), -1), bias.ravel()


def _directions(features: Matrix, groups: Sequence[slice]) -> np.ndarray:
    """(F, K): the directions in which the n-grams of texts differ most, then their vectors."""
    from sklearn.decomposition import TruncatedSVD

    directions = []
    for group in groups[:2]:
        part = features[:, group]
        most = min(MAX_DIRECTIONS, part.shape[0] // TEXTS_PER_DIRECTION, part.shape[1] - 1)
        weight = np.zeros((features.shape[1], max(most, 0)), np.float32)
        if most > 0:
            weight[group] = TruncatedSVD(most, random_state=0).fit(part).components_.T
        directions.append(weight)
    return np.concatenate(directions, axis=1)
