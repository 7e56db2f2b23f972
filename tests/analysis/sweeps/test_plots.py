"""The plots of a sweep: the best configuration on top, and the importance of each key."""

import pytest

from mlxlab.analysis.sweeps.sweep_jobs import Sweep, SweepJob
from mlxlab.analysis.sweeps.sweep_report import view_sweep


def ranked(num_seeds):
    """A sweep over rates, of which the largest is the best."""
    jobs = []
    for rate in ("0.1", "0.2", "0.3"):
        for seed in range(num_seeds):
            overrides = {"trainer.rate": rate, "seed": str(seed)}
            value = 1.0 - float(rate) + 0.001 * seed
            jobs.append(SweepJob(len(jobs), overrides, "finished", value))
    return view_sweep(Sweep("s", "valid/loss", tuple(jobs)))


def test_a_row_has_the_results_the_mean_and_its_interval():
    view = ranked(num_seeds=3)
    plot = view.ranking_plot
    assert [row.name for row in plot.rows] == ["rate=0.3", "rate=0.2", "rate=0.1"]
    assert [row.style for row in plot.rows] == ["good", "soft", "soft"]
    first = plot.rows[0]
    assert first.dots == pytest.approx([0.7, 0.701, 0.702])
    assert first.mean == pytest.approx(0.701)
    low, high = first.span
    assert high - first.mean == pytest.approx(view.ranking.entries[0].margin) == first.mean - low
