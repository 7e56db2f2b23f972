"""A cross-validation with teachers: each fold has its own, trained on the same rows as the student."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import wrap

import numpy as np

from mlxlab.analysis.crossvalidation import FoldRun, Result, read
from mlxlab.errors import InputNotFoundError


def teacher_override(fit: FoldRun, fits: Sequence[FoldRun], teachers: Sequence[FoldRun]) -> str:
    """The override by which a student learns from the teacher of its own fold, with that one's last weights."""
    folder = teachers[list(fits).index(fit)].folder
    return f"trainer.teachers=['{folder}/checkpoints/last']"


def add_baselines(results: Sequence[Result], others: Mapping[str, Sequence[FoldRun]]) -> list[Result]:
    """The results with the accuracies of others on the same folds, by name, among the baselines."""
    found = {name: {(fit.seed, fit.fold): read(fit) for fit in fits} for name, fits in others.items()}
    joined = []
    for result in results:
        mine = {name: by[result.seed, result.fold] for name, by in found.items()}
        more = {name: one.final for name, one in mine.items() if one is not None}
        joined.append(replace(result, baselines=result.baselines | more))
    return joined


def kept(students: Sequence[FoldRun], teachers: Sequence[FoldRun], alone: Sequence[FoldRun]) -> list[str]:
    """How much of the teachers' accuracy the students keep, with how many parameters, and whether teaching helped."""
    mine, theirs, own = (_accuracies(fits) for fits in (students, teachers, alone))
    sizes = [count_parameters(fits[0]) for fits in (students, teachers)]
    gains = mine - own
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
    gain = float(gains.mean())
    verdict = "a gain" if gain > 2 * error else "a loss" if gain < -2 * error else "no significant gain"
    text = (
        f"The student keeps {100 * mine.mean() / theirs.mean():.1f} % of the teacher's accuracy with {sizes[0]:,} of"
        f" its {sizes[1]:,} parameters ({100 * sizes[0] / sizes[1]:.0f} %). Against the same student alone, after"
        f" as many steps: {gain:+.4f} ({error:.4f}), {verdict}."
    )
    return wrap(text, 120)


def _accuracies(fits: Sequence[FoldRun]) -> np.ndarray:
    return np.array([result.final for fit in fits if (result := read(fit)) is not None])


def count_parameters(fit: FoldRun) -> int:
    """By the head of its last weights: nothing of the model is loaded."""
    files = sorted((fit.folder / "checkpoints").glob("step-*/model.safetensors"))
    if not files:
        raise InputNotFoundError(f"{fit.folder}: has no checkpoint")
    with files[-1].open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(leaf["shape"]) for name, leaf in head.items() if name != "__metadata__")
