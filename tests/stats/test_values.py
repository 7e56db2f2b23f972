"""The values of 42 random cases, which an implementation without arrays gave: they stay what they were."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlxlab.stats.bootstrap import gain_interval, interval, resample
from mlxlab.stats.paired import paired_t_test
from mlxlab.stats.ranking import rank

CASES = json.loads((Path(__file__).parent / "values.json").read_text())


def assert_equal(values, expected):
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES["rank"], ids=range(len(CASES["rank"])))
def test_ranking(case):
    values = np.array(case["values"], dtype=float)
    ranking = rank(values, minimised=case["minimised"], shared_rows=case["shared_rows"])
    assert (ranking.paired, ranking.seeds_needed) == (case["paired"], case["seeds_needed"])
    for entry, (index, count, standing, *numbers) in zip(
        ranking.entries, case["entries"], strict=True
    ):
        assert (entry.index, entry.count, entry.standing) == (index, count, standing)
        assert_equal([entry.mean, entry.margin, entry.lead, entry.p], numbers)


@pytest.mark.parametrize("case", CASES["paired"], ids=range(len(CASES["paired"])))
def test_paired(case):
    gain = paired_t_test(np.array(case["differences"]), case["shared_rows"])
    assert gain.verdict == case["verdict"]
    assert_equal([gain.mean, gain.low, gain.high, gain.p], case["numbers"])


@pytest.mark.parametrize("case", CASES["bootstrap"], ids=range(len(CASES["bootstrap"])))
def test_bootstrap(case):
    values = np.array(case["values"])
    size = len(values)
    means = resample({"mean": lambda counts: counts @ values / size}, size)["mean"]
    different = case["different"]
    gain = gain_interval(means, different, size, is_proportion=bool(different % 2))
    assert_equal(interval(means), case["interval"])
    assert_equal(gain, case["gain"])
