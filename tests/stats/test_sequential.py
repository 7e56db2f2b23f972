"""The sequential test of paired gains: its errors over all looks, its power, and what it says of special gains."""

import numpy as np
import pytest
from scipy.special import stdtrit

from mlxlab.stats.sequential import ERROR, boundaries, chance_to_keep, look


def decide(gains, min_gain=0.0, first=3, last=12):
    for n in range(first, last + 1):
        current = look(np.array(gains[:n]), min_gain, first, last)
        if current.verdict is not None:
            return current
    raise AssertionError("the last look decides")


def crossings(gains, last):
    """The share of rows of gains whose t statistic exceeds the boundary at any look, to each side."""
    upper = lower = np.zeros(len(gains), bool)
    for n, bound in boundaries(3, last).items():
        t = gains[:, :n].mean(1) / gains[:, :n].std(1, ddof=1) * np.sqrt(n)
        upper, lower = upper | (t > bound), lower | (t < -bound)
    return upper.mean(), lower.mean()


@pytest.mark.parametrize("last", [3, 7, 12])
def test_normal_gains_without_effect_cross_either_boundary_with_the_error_of_one_test(last):
    gains = np.random.default_rng(1).standard_normal((40_000, last))
    assert crossings(gains, last) == pytest.approx((ERROR, ERROR), abs=0.003)


def test_a_single_look_is_the_t_test():
    assert boundaries(5, 5) == {5: pytest.approx(stdtrit(4, 1 - ERROR))}


def test_changes_without_effect_are_rarely_kept_and_large_effects_mostly():
    random = np.random.default_rng(2)
    null = [decide(random.standard_normal(12), 0.07).verdict for _ in range(100)]
    real = [decide(random.standard_normal(12) + 2, 0.07).verdict for _ in range(20)]
    assert null.count("keep") <= 6
    assert null.count("discard") >= 88
    assert real.count("keep") >= 18


def test_the_interval_holds_at_all_looks():
    current = look(np.array([0.9, 1.1, 1.0, 1.05, 0.95]), 0.0, 3, 12)
    margin = boundaries(3, 12)[5] * np.std([0.9, 1.1, 1.0, 1.05, 0.95], ddof=1) / 5**0.5
    assert (current.low, current.high) == pytest.approx((1 - margin, 1 + margin))
    assert current.verdict == "keep"


def test_equal_results_and_clear_losses_are_discarded_at_the_first_look():
    assert decide([0.0] * 12).reason == "equal results"
    loss = decide([-1.0, -1.1, -0.9] * 4)
    assert (loss.verdict, loss.pairs, loss.reason) == ("discard", 3, "loss")


def test_a_gain_that_is_too_small_is_not_kept():
    small = decide(np.array([1.0, 1.1, 0.9] * 4) * 1e-6, 1e-3)
    assert (small.verdict, small.pairs) == ("discard", 3)
    assert small.reason == "gain too small"


def test_equal_gains_of_few_rows_need_more_pairs_than_chance_explains():
    """Three equal gains have no variance: t would be infinite, but the signs alone are those of 1 in 8 trials."""
    kept = decide([0.01] * 12)
    assert (kept.verdict, kept.pairs) == ("keep", 6)


def test_too_small_a_chance_is_a_discard_and_the_last_look_undecided():
    assert decide([1.0, -1.0, -0.5, -0.4, 0.2, -0.8, -0.1, 0.3] * 2).verdict == "discard"
    wavering = [1.0, -0.2, 0.9, -0.1, 1.1, -0.3, 1.0, -0.4, 0.8, -0.3, 0.9, -0.5]
    assert look(np.array(wavering), 0.0, 3, 12).verdict == "undecided"
    assert look(np.array(wavering), 0.0, 3, 24).verdict is None


def test_the_chance_to_keep_grows_with_the_gain():
    base = np.array([0.1, -0.3, 0.4, 0.2])
    chances = [chance_to_keep(base + shift, 0.0, 3, 12) for shift in (-0.3, 0.0, 0.3)]
    assert chances == sorted(chances)
    assert chances[0] < 0.1 < chances[2]
    assert chance_to_keep(base, 0.0, 3, 12) == chances[1]


def test_before_the_first_look_nothing_is_decided():
    assert look(np.array([5.0, 5.1]), 0.0, 3, 12).verdict is None
