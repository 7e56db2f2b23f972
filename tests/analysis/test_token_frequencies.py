"""Outliers among the frequencies of tokens, at both ends."""

import numpy as np

from mlxlab.analysis.token_frequencies import token_outliers


def test_outliers_lie_beyond_the_fences_of_the_logarithms_at_both_ends():
    counts = np.array([0, 100, 110, 1, 90, 120, 95, 10_000, 0, 105, 100])
    logs = np.log(counts[counts > 0])
    low, high = np.quantile(logs, [0.25, 0.75])
    upper = int(np.exp(high + 1.5 * (high - low)))
    outliers = token_outliers(counts)
    assert (outliers["frequent"].tolist(), outliers["rare"].tolist()) == ([7], [3])
    for count, expected in ((upper, [7]), (upper + 1, [5, 7])):
        counts[5] = count
        logs = np.sort(np.log(counts[counts > 0]))
        assert np.quantile(logs, 0.75) == high
        assert sorted(token_outliers(counts)["frequent"].tolist()) == expected
