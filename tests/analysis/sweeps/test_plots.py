"""The plots of a sweep: the best configuration on top, and each job as a line."""

import pytest

from mlxlab.analysis.sweeps.plots import curve_plot, importance_plot, ranking_plot
from mlxlab.analysis.sweeps.sweep_jobs import Sweep, SweepJob, group_configurations
from mlxlab.stats.importance import Importance
from mlxlab.stats.ranking import as_table, rank

RATES = ("0.1", "0.2", "0.3")
CURVE = ((0, 2.0), (10, 1.0))


def ranked(num_seeds, curve=CURVE, rates=RATES):
    """A sweep over rates, of which the largest is the best, with its configurations and their ranking."""
    jobs = []
    for rate in rates:
        for seed in range(num_seeds):
            overrides = {"trainer.rate": rate, "seed": str(seed)}
            values = {"valid/loss": 1.0 - float(rate) + 0.001 * seed}
            jobs.append(SweepJob(len(jobs), overrides, "finished", values, curve=curve))
    sweep = Sweep("s", ("valid/loss",), tuple(jobs))
    configurations = group_configurations(sweep)
    results = [each.results("valid/loss") for each in configurations]
    return sweep, configurations, rank(as_table(results), minimised=True)


def test_a_row_has_the_results_the_mean_and_its_interval():
    sweep, configurations, ranking = ranked(num_seeds=3)
    plot = ranking_plot(sweep, configurations, ranking)
    assert [row.name for row in plot.rows] == ["rate=0.3", "rate=0.2", "rate=0.1"]
    assert [row.style for row in plot.rows] == ["good", "soft", "soft"]
    first = plot.rows[0]
    assert first.dots == pytest.approx([0.7, 0.701, 0.702])
    assert first.mean == pytest.approx(0.701)
    low, high = first.span
    assert high - first.mean == pytest.approx(ranking.entries[0].margin) == first.mean - low


def test_one_seed_has_no_interval():
    plot = ranking_plot(*ranked(num_seeds=1))
    assert {(row.mean, row.span) for row in plot.rows} == {(None, None)}
    assert plot.title == "Configurations: a dot per seed"


def test_each_job_is_a_line_and_each_of_the_best_configurations_has_a_colour_and_a_name():
    rates = [f"0.{n}" for n in range(1, 8)]
    plot = curve_plot(*ranked(num_seeds=2, rates=rates))
    assert [each.style for each in plot.series[:4]] == ["soft"] * 4
    assert [each.style for each in plot.series[4::2]] == ["s0", "s1", "s2", "s3", "s4"]
    assert [each.name for each in plot.series[4:7]] == ["rate=0.7", "", "rate=0.6"]
    assert len(plot.series) == 14
    assert plot.x_range == (0, 10)


def test_curves_of_one_point_are_no_plot():
    assert curve_plot(*ranked(num_seeds=2, curve=CURVE[:1])) is None


def test_the_lines_of_many_jobs_are_thinned():
    curve = tuple((step, 1.0) for step in range(400))
    plot = curve_plot(*ranked(num_seeds=100, curve=curve))
    assert sum(len(each.finite) for each in plot.series) < 6000


def test_an_importance_is_a_line_from_0_with_its_share():
    plot = importance_plot(Importance({"a.rate": 0.75, "b": 0.25}, 0.9, ""))
    assert [row.name for row in plot.rows] == ["a.rate: 75 %", "b: 25 %"]
    assert [row.span for row in plot.rows] == [(0.0, 0.75), (0.0, 0.25)]
