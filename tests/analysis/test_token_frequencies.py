"""Outliers among the frequencies of tokens, at both ends."""

import numpy as np

from mlxlab.analysis.token_frequencies import token_frequencies


def test_outliers_lie_beyond_the_fences_of_the_logarithms_at_both_ends():
    counts = np.array([0, 100, 110, 1, 90, 120, 95, 10_000, 0, 105, 100])
    frequencies = token_frequencies(counts)
    assert frequencies.ids.tolist() == [7, 5, 2, 9, 1, 10, 6, 4, 3]
    assert frequencies.counts.tolist() == sorted(counts[counts > 0].tolist(), reverse=True)
    assert frequencies.ids[frequencies.frequent_outliers].tolist() == [7]
    assert frequencies.ids[frequencies.rare_outliers].tolist() == [3]
    logs = np.log(counts[counts > 0])
    low, high = np.quantile(logs, [0.25, 0.75])
    assert np.isclose(np.log(frequencies.upper), high + 1.5 * (high - low))
    assert frequencies.unused == 2


def test_equal_counts_and_a_single_token_have_no_outliers():
    for counts in (np.array([0, 7]), np.full(50, 3)):
        frequencies = token_frequencies(counts)
        assert not len(frequencies.frequent_outliers)
        assert not len(frequencies.rare_outliers)
