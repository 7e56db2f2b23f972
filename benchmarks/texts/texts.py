"""`data=text_classification` by its default command against n-grams and frozen vectors with linear models.

Every set has one test of 600 rows. A difference is that of two methods on its rows, each the mean over the training
subsets of a size; it is beyond noise by the paired test of Holm (1979) over all settings.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.default_command import outputs_of, train_and_predict
from benchmarks.texts.sets import SETS, SUBSETS, Pairs, Texts
from mlxlab.cells.vectors import Embed, known_vectors
from mlxlab.errors import ConfigError
from mlxlab.models.pretrained.load import resolve
from mlxlab.models.sentence_encoder import SentenceEncoder

WORDS = (1, 2)
CHARACTERS = (3, 5)
LEVEL = 0.05
OURS = {"mlxlab": "", "mlxlab minilm": "model.pretrained=minilm"}
PEER_OF = {"mlxlab": ("ngrams svm",), "mlxlab minilm": ("ngrams svm", "ngrams lr", "vectors lr")}


@dataclass
class Setting:
    """What methods make of the subsets of one size of a set: the errors on the test rows, a mean over the subsets."""

    name: str
    rows: int
    errors: dict[str, np.ndarray] = field(default_factory=dict)  # (N,), from 0 to 1
    seconds: dict[str, float] = field(default_factory=dict)  # CPU time of a training, the mean

    def best(self, methods: Sequence[str]) -> str:
        return min(methods, key=lambda method: float(self.errors[method].mean()))

    def compare(self, method: str) -> tuple[float, float]:
        """By how much a method is better than the best of its peers, and the p-value of the difference."""
        from scipy.stats import norm

        best = self.best(PEER_OF[method])
        differences = self.errors[best] - self.errors[method]
        gain = float(differences.mean())
        error = float(differences.std(ddof=1)) / len(differences) ** 0.5
        return gain, float(2 * norm.sf(abs(gain) / error)) if error else 1.0


def texts(only: str | None = None, rows: str = "100,1000", subsets: int = 5) -> str:
    """A report in Markdown.

    Args:
        only: names of sets, separated by commas.
        rows: sizes of subsets, separated by commas.
        subsets: the most of a size.
    """
    by_name = {each.name: each for each in SETS}
    names = list(by_name) if only is None else only.split(",")
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ConfigError(f"only={unknown[0]}: expected some of {', '.join(by_name)}")
    sizes = [int(size) for size in rows.split(",") if size.isdigit()]
    if not sizes or not set(sizes) <= SUBSETS.keys():
        raise ConfigError(f"rows={rows}: expected some of {', '.join(map(str, SUBSETS))}")
    encoder = SentenceEncoder(resolve("minilm"))
    settings: list[Setting] = []
    for name in names:
        for size in sizes:
            setting = _measure(by_name[name], size, min(subsets, SUBSETS[size]), encoder)
            if setting is not None:
                settings.append(setting)
                print(_row(setting, {}), flush=True)
    return _report(settings)


def _measure(chosen: Texts, size: int, subsets: int, encoder: SentenceEncoder) -> Setting | None:
    train, test = chosen.split()
    if size > len(train):
        return None
    setting = Setting(chosen.name, size)
    parts = [part for n in range(subsets) if (part := chosen.subset(train, size, n)) is not None]
    used = [text for part in [*parts, test] for text, _ in part]
    errors: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        embed = known_vectors(encoder, used, Path(folder))
        for number, part in enumerate(parts):
            results = _fit_peers(part, test, embed)
            for method, override in OURS.items():
                place = Path(folder) / f"{method.replace(' ', '_')}_{number}"
                results[method] = _fit_ours(place, part, test, override)
            for method, (error, cost) in results.items():
                errors.setdefault(method, []).append(error)
                seconds.setdefault(method, []).append(cost)
    setting.errors = {method: np.mean(each, axis=0) for method, each in errors.items()}
    setting.seconds = {method: float(np.mean(each)) for method, each in seconds.items()}
    return setting


def _fit_ours(folder: Path, train: Pairs, test: Pairs, override: str) -> tuple[np.ndarray, float]:
    frames = [pd.DataFrame(pairs, columns=["text", "label"]) for pairs in (train, test)]
    settings = ["data=text_classification", "data.task=single", *override.split()]
    answers, seconds = train_and_predict(folder, *frames, settings)
    classes = sorted({label for _, label in train})
    predicted = np.array(classes)[outputs_of(answers, classes).argmax(axis=1)]
    return predicted != np.array([label for _, label in test]), seconds


def _fit_peers(train: Pairs, test: Pairs, embed: Embed) -> dict[str, tuple[np.ndarray, float]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    vectorizer = _new_vectorizer()
    labels = [np.array([label for _, label in pairs]) for pairs in (train, test)]
    texts = [[text for text, _ in pairs] for pairs in (train, test)]
    ngrams = [vectorizer.fit_transform(texts[0]), vectorizer.transform(texts[1])]
    vectors = [embed(each) for each in texts]
    fits: Mapping[str, tuple[Callable[[], Any], list[Any]]] = {
        "ngrams svm": (LinearSVC, ngrams),
        "ngrams lr": (lambda: LogisticRegression(C=10, max_iter=300), ngrams),
        "vectors lr": (lambda: LogisticRegression(C=10, max_iter=1000), vectors),
    }
    results: dict[str, tuple[np.ndarray, float]] = {}
    for name, (new_model, features) in fits.items():
        start = time.process_time()
        predicted = new_model().fit(features[0], labels[0]).predict(features[1])
        results[name] = (predicted != labels[1], time.process_time() - start)
    return results


def _new_vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    words = TfidfVectorizer(ngram_range=WORDS, sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=CHARACTERS, sublinear_tf=True)
    return make_union(words, characters)


def _signs(settings: Sequence[Setting], method: str) -> dict[tuple[str, int], str]:
    """+ where a method is better than the best of its peers, - where it is worse, beyond noise."""
    compared = [(*each.compare(method), (each.name, each.rows)) for each in settings]
    signs: dict[tuple[str, int], str] = {}
    for number, (gain, p_value, key) in enumerate(sorted(compared, key=lambda each: each[1])):
        if p_value > LEVEL / (len(compared) - number):
            break
        signs[key] = "+" if gain > 0 else "-"
    return signs


def _row(setting: Setting, signs: Mapping[str, Mapping[tuple[str, int], str]]) -> str:
    cells = [setting.name, str(setting.rows)]
    for method, errors in setting.errors.items():
        sign = signs.get(method, {}).get((setting.name, setting.rows), "")
        cells.append(f"{1 - errors.mean():.3f}{sign}")
    cells += [f"{setting.seconds[method]:.1f}" for method in OURS]
    return f"| {' | '.join(cells)} |"


def _report(settings: Sequence[Setting]) -> str:
    columns = ["texts", "rows", *settings[0].errors, *(f"CPU s, {method}" for method in OURS)]
    signs = {method: _signs(settings, method) for method in OURS}
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [_row(each, signs) for each in settings]
    lines.append("")
    for method in OURS:
        found = list(signs[method].values())
        better = sum(each.compare(method)[0] > 0 for each in settings)
        peers = ", ".join(PEER_OF[method])
        lines.append(
            f"{method} against the best of {peers}: better in {better} of {len(settings)} settings,"
            f" beyond noise in {found.count('+')}, worse beyond noise in {found.count('-')}"
        )
    return "\n".join(lines)
