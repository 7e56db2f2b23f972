"""`data=text_classification` by its default command against n-grams and frozen vectors with linear models.

Every set has one test of 600 rows. A difference is that of two methods on its rows, each the mean over the training
subsets of a size; it is beyond noise by the paired test of Holm (1979) over all settings.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.default_command import outputs_of, train_and_predict
from benchmarks.kept import Arrays, kept
from benchmarks.texts.sets import SETS, SUBSETS, Pairs
from mlxlab.errors import ConfigError
from mlxlab.models.cells.vectors import Embed, known_vectors
from mlxlab.models.pretrained.load import resolve
from mlxlab.models.sentence_encoder import SentenceEncoder

WORDS = (1, 2)
CHARACTERS = (3, 5)
LEVEL = 0.05
ERRORS = "errors "  # how the names of arrays begin
SECONDS = "seconds "
Fit = tuple[np.ndarray, float]  # the errors (N,) and CPU seconds of a method
OURS = {"mlxlab": "", "mlxlab minilm": "model.pretrained=minilm"}
PEER_OF = {"mlxlab": ("ngrams svm",), "mlxlab minilm": ("ngrams svm", "ngrams lr", "vectors lr")}


@dataclass
class Setting:
    """What methods make of the subsets of one size of a set: the errors on the test rows, a mean over the subsets."""

    name: str
    rows: int
    arrays: Arrays

    @cached_property
    def errors(self) -> dict[str, np.ndarray]:
        """(N,) from 0 to 1, by method."""
        means = {key: each.mean(axis=0) for key, each in self.arrays.items()}
        return {key.removeprefix(ERRORS): means[key] for key in means if key.startswith(ERRORS)}

    @cached_property
    def seconds(self) -> dict[str, float]:
        """CPU time of a training, by method."""
        means = {key: float(each.mean()) for key, each in self.arrays.items()}
        return {key.removeprefix(SECONDS): means[key] for key in means if key.startswith(SECONDS)}

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


def texts(
    only: str | None = None,
    rows: str = "100,1000",
    subsets: int = 5,
    workers: int = 2,
    results: str | None = None,
) -> str:
    """A report in Markdown.

    Args:
        only: names of sets, separated by commas.
        rows: sizes of subsets, separated by commas.
        subsets: the most of a size.
        workers: commands at a time.
        results: a folder that keeps what was measured, from which a later call goes on.
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
            train, test = by_name[name].split()
            if size > len(train):
                continue
            drawn = [
                by_name[name].subset(train, size, n) for n in range(min(subsets, SUBSETS[size]))
            ]
            parts = [part for part in drawn if part is not None]
            measure = partial(_measure, parts, test, encoder, workers)
            arrays = kept(results, f"{name}-{size}-{len(parts)}", measure)
            settings.append(Setting(name, size, arrays))
            print(_row(settings[-1], {}), flush=True)
    return _report(settings)


def _measure(parts: Sequence[Pairs], test: Pairs, encoder: SentenceEncoder, workers: int) -> Arrays:
    """The errors (S, N) of each method on the test rows, and its CPU seconds (S,), by subset."""
    used = [text for part in [*parts, test] for text, _ in part]
    errors: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        embed = known_vectors(encoder, used, Path(folder))
        ours: list[dict[str, Future[Fit]]] = []
        for number, part in enumerate(parts):
            runs: dict[str, Future[Fit]] = {}
            for method, override in OURS.items():
                place = Path(folder) / f"{method.replace(' ', '_')}_{number}"
                runs[method] = pool.submit(_fit_ours, place, part, test, override)
            ours.append(runs)
        for part, runs in zip(parts, ours, strict=True):
            fits = _fit_peers(part, test, embed)
            fits |= {method: run.result() for method, run in runs.items()}
            for method, (error, cost) in fits.items():
                errors.setdefault(method, []).append(error)
                seconds.setdefault(method, []).append(cost)
    arrays = {f"{ERRORS}{method}": np.array(each) for method, each in errors.items()}
    return arrays | {f"{SECONDS}{method}": np.array(each) for method, each in seconds.items()}


def _fit_ours(folder: Path, train: Pairs, test: Pairs, override: str) -> Fit:
    train_rows, test_rows = (
        pd.DataFrame(pairs, columns=["text", "label"]) for pairs in (train, test)
    )
    settings = ["data=text_classification", "data.task=single", *override.split()]
    answers, cost = train_and_predict(folder, train_rows, test_rows, settings)
    classes = sorted({label for _, label in train})
    predicted = np.array(classes)[outputs_of(answers, classes).argmax(axis=1)]
    return predicted != np.array([label for _, label in test]), cost.command


def _fit_peers(train: Pairs, test: Pairs, embed: Embed) -> dict[str, Fit]:
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
    results: dict[str, Fit] = {}
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
