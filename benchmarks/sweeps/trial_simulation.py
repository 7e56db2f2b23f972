"""The sequential test of `trial` on simulated gains of many noise shapes, compared with other ways to decide."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

import numpy as np
from scipy.special import stdtrit

from benchmarks.alternate import table
from mlxlab.stats.sequential import ERROR, MIN_PAIRS, look
from mlxlab.terminal.wording import percent

Noise = Callable[[np.random.Generator, int], np.ndarray]
Decision = tuple[bool, int]  # whether the change is kept, and after how many pairs

ROWS = 100  # of the accuracies
_FLIPS = 4  # rows of which a pair may differ

NOISE: dict[str, Noise] = {  # gains without an effect, of variance 1
    "normal": lambda random, n: random.standard_normal(n),
    "heavy tails (t, 3 degrees)": lambda random, n: random.standard_t(3, n) / math.sqrt(3),
    "skewed losses (log-normal)": lambda random, n: (
        (random.lognormal(0, 1, n) - random.lognormal(0, 1, n)) / 3.056
    ),
    "skewed gains (exponential)": lambda random, n: random.exponential(1, n) - 1,
    "one run in 20 fails to learn": lambda random, n: (
        random.standard_normal(n) * np.where(random.random(n) < 0.05, 10, 1) / 2.44
    ),
    "accuracies of 100 rows": lambda random, n: (
        (random.binomial(ROWS, 0.8, n) - random.binomial(ROWS, 0.8, n)) / math.sqrt(2 * ROWS * 0.16)
    ),
    "few rows differ": lambda random, n: (
        (random.binomial(_FLIPS, 0.5, n) - random.binomial(_FLIPS, 0.5, n)) / math.sqrt(_FLIPS / 2)
    ),
    "mostly better, rarely much worse": lambda random, n: (
        1 - random.exponential(1, n)
    ),  # mean 0, but not the same
    "mostly equal": lambda random, n: (
        np.where(random.random(n) < 0.7, 0, random.standard_normal(n)) / 0.548
    ),
}


def simulate(draws: int, max_seeds: int, effects: Sequence[float]) -> str:
    """Tables: share of trials that keep the change, and pairs, by noise and effect; other tests on normal noise."""
    heads = ["noise of the gains", "false keeps", "pairs"]
    heads += [head for effect in effects for head in (f"keeps at {effect:g} sd", "pairs")]
    rows = [tuple(heads)]
    for name, noise in NOISE.items():
        cells = [_cells(_sequential, noise, effect, draws, max_seeds) for effect in (0.0, *effects)]
        rows.append((name, *(cell for pair in cells for cell in pair)))
    methods = {
        "this test": _sequential,
        "keep if better, one pair": lambda gains: (gains[0] > 0, 1),
        "keep if better, mean of 3 pairs": lambda gains: (fmean(gains[:3]) > 0, 3),
        "t-test after every pair, not corrected": _uncorrected,
        f"one t-test of {max_seeds} pairs": _fixed,
        "e-value, valid without a last look": _e_value,
    }
    others = [("test, normal noise", *heads[1:])]
    for name, method in methods.items():
        cells = [
            _cells(method, NOISE["normal"], effect, draws, max_seeds) for effect in (0.0, *effects)
        ]
        others.append((name, *(cell for pair in cells for cell in pair)))
    title = (
        f"{draws:,} simulated trials per cell, at most {max_seeds} pairs, error {percent(ERROR)}"
    )
    return f"{table(title, rows)}\n\n{table(f'other tests, {draws:,} simulated trials per cell', others)}"


def _cells(
    decide: Callable[[list[float]], Decision],
    noise: Noise,
    effect: float,
    draws: int,
    max_seeds: int,
) -> tuple[str, str]:
    random = np.random.default_rng(round(1000 * effect))
    decisions = [
        decide([float(gain) for gain in noise(random, max_seeds) + effect]) for _ in range(draws)
    ]
    return percent(
        fmean(kept for kept, _ in decisions)
    ), f"{fmean(pairs for _, pairs in decisions):.1f}"


def _sequential(gains: list[float]) -> Decision:
    """The smallest gain worth keeping is a tenth of the deviation of a run, whose gain has sqrt(2) times as much."""
    for n in range(MIN_PAIRS, len(gains) + 1):
        current = look(np.array(gains[:n]), 0.1 / math.sqrt(2), MIN_PAIRS, len(gains))
        if current.verdict is not None:
            return current.verdict == "keep", n
    raise AssertionError("the last look decides")


def _uncorrected(gains: list[float]) -> Decision:
    for n in range(MIN_PAIRS, len(gains) + 1):
        if _t(gains[:n]) > stdtrit(n - 1, 1 - ERROR):
            return True, n
    return False, len(gains)


def _fixed(gains: list[float]) -> Decision:
    return _t(gains) > stdtrit(len(gains) - 1, 1 - ERROR), len(gains)


def _e_value(gains: list[float]) -> Decision:
    """The t-test as a mixture of likelihood ratios over effects of N(0, 1) (Wang & Ramdas 2024)."""
    for n in range(2, len(gains) + 1):
        t, scale = _t(gains[:n]), 1 + n
        log_ratio = math.log1p(t * t / (n - 1)) - math.log1p(t * t / ((n - 1) * scale))
        if t > 0 and n / 2 * log_ratio - math.log(scale) / 2 >= -math.log(2 * ERROR):
            return True, n
    return False, len(gains)


def _t(gains: list[float]) -> float:
    error = stdev(gains) / math.sqrt(len(gains))
    return fmean(gains) / error if error else math.inf * math.copysign(1, fmean(gains) or -1)
