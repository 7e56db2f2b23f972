"""A winner is named only outside the noise; `python -m benchmarks suite=sweep_winner` simulates many more sweeps."""

import math

import numpy as np
import pytest

from mlxlab.stats.ranking import rank


def on_seeds(table, paired=True):
    """Rows of values, of the same seeds in all rows or of different ones."""
    values = np.array(table, dtype=float)
    if paired:
        return values
    rows, width = values.shape
    apart = np.full((rows, rows * width), np.nan)
    for row in range(rows):
        apart[row, row * width : (row + 1) * width] = values[row]
    return apart


def share_with_winner(tables, paired):
    return np.mean(
        [rank(on_seeds(table, paired), minimised=False).winner is not None for table in tables]
    )


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("configurations", [2, 20])
def test_equal_configurations_rarely_have_a_winner(configurations, paired):
    tables = np.random.default_rng(0).binomial(100, 0.8, (200, configurations, 3)) / 100
    assert share_with_winner(tables, paired) <= 0.05


def test_a_better_configuration_is_found_in_most_sweeps_and_more_often_on_common_seeds():
    rng = np.random.default_rng(1)
    own, common = rng.standard_normal((60, 10, 5)), rng.standard_normal((60, 1, 5))
    tables = (own + common) / math.sqrt(2)
    tables[:, 3] += 2.0
    assert share_with_winner(tables, paired=True) > 0.85
    assert 0.35 < share_with_winner(tables, paired=False) < share_with_winner(tables, paired=True)


def test_seeds_cancel_only_where_they_are_common():
    seeds = np.array([0.0, 1.0, 2.0, 3.0])
    table = [seeds, seeds + np.array([0.21, 0.2, 0.19, 0.2])]
    paired = rank(on_seeds(table), minimised=False)
    assert paired.paired
    assert paired.winner is not None
    assert not rank(on_seeds(table, paired=False), minimised=False).paired
    assert rank(on_seeds(table, paired=False), minimised=False).winner is None
    incomplete = on_seeds([*table, seeds - 1])
    incomplete[2, 0] = np.nan
    assert rank(incomplete, minimised=False).paired
    assert rank(incomplete, minimised=False).winner is not None


def test_two_equal_differences_of_a_rounded_metric_are_no_winner():
    assert rank(on_seeds([[0.80, 0.85], [0.81, 0.86]]), minimised=False).winner is None
    assert rank(on_seeds([[0.8, 0.8], [0.8, 0.8]]), minimised=False).winner is None


def test_one_seed_of_each_gives_no_winner_and_one_of_the_best_is_no_evidence():
    alone = rank(on_seeds([[0.1], [0.9]]), minimised=True)
    assert alone.closest is None
    assert alone.winner is None
    single = np.random.default_rng(2).normal(0.9, 0.01, (5, 5))
    single[0] = [0.01, *[np.nan] * 4]
    ranking = rank(single, minimised=True)
    assert ranking.entries[0].index == 0
    assert ranking.winner is None


def test_folds_of_a_cross_validation_need_a_larger_lead():
    table = np.random.default_rng(4).normal(0, 1, (3, 10))
    table[0] += 1.5
    assert rank(on_seeds(table), minimised=False).winner is not None
    assert rank(on_seeds(table), minimised=False, shared_rows=1.0).winner is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_of_any_configuration_name_no_winner(seeds):
    clear = on_seeds([[0.1, 0.11, 0.1], [0.9, 0.91, 0.89], [0.9, 0.92, 0.9]])
    assert rank(clear, minimised=True).winner is not None
    for short in range(3):
        fewer = clear.copy()
        fewer[short, seeds:] = np.nan
        ranking = rank(fewer, minimised=True)
        assert ranking.winner is None
        assert ranking.seeds_needed == 3 - seeds
        assert [each.index for each in ranking.short] == [short]


def test_a_noisy_configuration_is_judged_by_its_own_noise():
    rng = np.random.default_rng(3)
    tables = rng.standard_normal((100, 8, 5))
    tables[:, 0] *= 20
    assert share_with_winner(tables, paired=False) < 0.1
