"""Comparisons: known values of the test, and no claim that the figures do not carry."""

import json
import math

import numpy as np
import pytest

from mlxlab.analysis.comparison import MethodResults, compare, paired_t_test, summary_sentence
from mlxlab.analysis.comparison_report import markdown, write_comparison
from support.models import Recorder

ALONE = [0.80, 0.82, 0.79, 0.81, 0.78]


def series(name, values, **more):
    return MethodResults(name, {f"seed {seed}": value for seed, value in enumerate(values)}, **more)


def against_alone(values, metric="valid/accuracy", alone=ALONE, **more):
    return compare(metric, [series("alone", alone), series("distilled", values)], "alone", **more)


def test_the_interval_is_that_of_the_textbook():
    # Student (1908), sleep gained by ten patients with each of two drugs: t = 4.0621, p = 0.002833 on 9 degrees.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    gain = paired_t_test([b - a for a, b in zip(first, second, strict=True)])
    assert gain.mean == pytest.approx(1.58)
    assert (gain.low, gain.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert gain.p == pytest.approx(0.00283289, abs=1e-7)
    assert gain.verdict == "significant gain"


def test_folds_widen_the_interval_by_the_rows_they_share():
    differences = [0.01, 0.03, 0.02, 0.025, 0.015]
    plain, corrected = paired_t_test(differences), paired_t_test(differences, test_ratio=1 / 4)
    assert corrected.mean == plain.mean
    assert (corrected.high - corrected.mean) / (plain.high - plain.mean) == pytest.approx(
        math.sqrt((1 / 5 + 1 / 4) * 5)
    )
    assert against_alone(ALONE, folds=5).test_ratio == 1 / 4


def test_a_gain_is_a_gain_and_chance_is_none():
    gain = against_alone([value + 0.02 + 0.001 * i for i, value in enumerate(ALONE)]).gains["distilled"]
    assert (gain.verdict, gain.pairs) == ("significant gain", 5)
    chance = against_alone([0.82, 0.80, 0.81, 0.79, 0.80])
    assert chance.gains["distilled"].verdict == "no significant gain"
    assert "no significant gain" in summary_sentence(chance, "distilled")
    assert against_alone([value - 0.02 - 0.001 * i for i, value in enumerate(ALONE)]).gains["distilled"].verdict == (
        "significant loss"
    )


def test_gains_of_nothing_are_found_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    claims = [paired_t_test(rng.normal(size=5).tolist()).verdict != "no significant gain" for _ in range(2000)]
    assert 0.035 < np.mean(claims) < 0.065


def test_less_is_better_where_a_loss_is_compared():
    for metric in ("valid/loss", "valid/bits_per_byte", "valid/perplexity"):
        lower = against_alone([value - 0.02 - 0.001 * i for i, value in enumerate(ALONE)], metric)
        assert lower.gains["distilled"].verdict == "significant gain"
        assert lower.gains["distilled"].mean > 0
        assert "lower" in summary_sentence(lower, "distilled")


def test_pairs_are_runs_of_the_same_name():
    shuffled = MethodResults("b", {"seed 1": 2.0, "seed 0": 1.0, "seed 7": 9.0})
    gain = compare("valid/f1", [MethodResults("a", {"seed 0": 0.5, "seed 1": 1.5}), shuffled], "a").gains["b"]
    assert (gain.pairs, gain.mean) == (2, 0.5)


@pytest.mark.parametrize(("values", "said"), [([0.9], "one pair: no verdict"), ([], "no run in common")])
def test_of_one_run_nothing_is_said(values, said):
    comparison = against_alone(values)
    gain = comparison.gains["distilled"]
    assert (gain.low, gain.high, gain.p) == (-math.inf, math.inf, 1.0)
    assert said in summary_sentence(comparison, "distilled")
    assert "significant" not in summary_sentence(comparison, "distilled")
    assert said in markdown(comparison)
    assert "nan" not in markdown(comparison).replace("distilled", "")


def test_equal_runs_are_no_gain_and_a_run_that_broke_none_either():
    assert against_alone(ALONE).gains["distilled"].verdict == "no significant gain"
    assert against_alone(ALONE).gains["distilled"].p == 1
    broken = against_alone([math.nan, *ALONE[1:]])
    assert broken.gains["distilled"].verdict == "no significant gain"


def test_a_reference_that_is_not_there_or_a_name_twice_is_refused():
    with pytest.raises(ValueError, match="alone, distilled"):
        compare("valid/f1", [series("alone", ALONE), series("distilled", ALONE)], "teacher")
    with pytest.raises(ValueError, match="each once"):
        compare("valid/f1", [series("alone", ALONE), series("alone", ALONE)], "alone")


def test_the_report_shows_sizes_speed_steps_and_verdicts_and_goes_to_the_store(tmp_path):
    methods = [
        series("alone", ALONE, parameters=400_000, speed=1200.0, steps=500),
        series("distilled", [value + 0.03 + 0.001 * i for i, value in enumerate(ALONE)], parameters=400_000, steps=500),
        series("teacher", [0.85], parameters=1_000_000, speed=300.4, steps=2000),
    ]
    tracker = Recorder()
    comparison = compare("valid/accuracy", methods, "alone")
    text = write_comparison(comparison, tmp_path / "new", share_of="teacher", command="study.py", tracker=tracker)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert table["distilled"]["verdict"] == "significant gain"
    assert table["teacher"]["verdict"] == "one pair: no verdict"
    assert (table["alone"]["parameters"], table["alone"]["speed (/s)"]) == ("400,000", "1,200")
    assert table["distilled"]["parameters / teacher"] == "40.0%"
    assert table["distilled"]["valid/accuracy / teacher"] == "97.9%"
    assert "Numbers of steps differ: 500, 2,000" in " ".join(text.split())
    assert "paired t over seeds" in text
    assert "2 comparisons" in text
    assert text.endswith("    study.py")
    assert (tmp_path / "new" / "comparison.md").read_text() == text + "\n"
    written = json.loads((tmp_path / "new" / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert written["series"][1]["gain"]["verdict"] == "significant gain"
    assert (tmp_path / "new" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.suffix for path in tracker.artifacts] == [".md", ".json", ".png"]
