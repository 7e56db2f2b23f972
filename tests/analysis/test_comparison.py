"""Comparisons: known values of the test, and no claim that the results do not support."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mlxlab.analysis.comparison import MethodResults, compare
from mlxlab.analysis.comparison_report import ComparisonView, comparison_lines, write_report

ALONE = [0.80, 0.82, 0.79, 0.81, 0.78]


def results(name, values, **fields):
    return MethodResults(
        name, {f"seed {seed}": value for seed, value in enumerate(values)}, **fields
    )


def against_alone(values, metric="valid/accuracy", **fields):
    methods = [results("alone", ALONE, **fields), results("distilled", values, **fields)]
    return compare(metric, methods, "alone")


def better_by(difference):
    return [value + difference + 0.001 * i * np.sign(difference) for i, value in enumerate(ALONE)]


def gain_of(*args, **fields):
    return against_alone(*args, **fields).gains["distilled"]


def sentence(comparison):
    lines = comparison_lines(comparison).splitlines()
    return next(line.removeprefix("- ") for line in lines if line.startswith("- "))


def test_a_gain_is_told_from_chance():
    gain = gain_of(better_by(0.02))
    assert (gain.verdict, gain.pairs) == ("significant gain", 5)
    chance = against_alone([0.82, 0.80, 0.81, 0.79, 0.80])
    assert chance.gains["distilled"].verdict == "no significant gain"
    assert "no significant gain" in sentence(chance)
    assert gain_of(better_by(-0.02)).verdict == "significant loss"


def test_lower_is_better_for_losses():
    for metric in ("valid/loss", "valid/bits_per_byte", "valid/perplexity"):
        lower = against_alone(better_by(-0.02), metric)
        assert lower.gains["distilled"].verdict == "significant gain"
        assert lower.gains["distilled"].mean > 0
        assert "lower" in sentence(lower)


def test_pairs_are_runs_of_the_same_name():
    reference = MethodResults("a", {"seed 0": 0.5, "seed 1": 1.5})
    shuffled = MethodResults("b", {"seed 1": 2.0, "seed 0": 1.0, "seed 7": 9.0})
    gain = compare("valid/f1", [reference, shuffled], "a").gains["b"]
    assert (gain.pairs, gain.mean) == (2, 0.5)


@pytest.mark.parametrize(
    ("values", "verdict"), [([0.9], "one pair: no verdict"), ([], "no run in common")]
)
def test_a_single_run_gets_no_verdict(values, verdict):
    comparison = against_alone(values)
    gain = comparison.gains["distilled"]
    assert (gain.interval, gain.p) == (None, 1.0)
    assert verdict in sentence(comparison)
    assert "significant" not in sentence(comparison)
    assert verdict in comparison_lines(comparison)
    assert "nan" not in comparison_lines(comparison).replace("distilled", "")


def test_equal_runs_and_a_run_with_nan_are_no_gain():
    equal = gain_of(ALONE)
    assert (equal.verdict, equal.p) == ("no difference in any pair", 1)
    assert gain_of([math.nan, *ALONE[1:]]).verdict == "no significant gain"


def test_the_report_has_sizes_speed_steps_and_verdicts(tmp_path):
    better = better_by(0.03)
    methods = [
        results("alone", ALONE, parameters=400_000, speed=1200.0, steps=500),
        results("distilled", better, parameters=400_000, steps=500),
        results("teacher", [0.85], parameters=1_000_000, speed=300.4, steps=2000),
    ]
    comparison = compare("valid/accuracy", methods, "alone")
    comparison = replace(comparison, command="study.py")
    text = comparison_lines(comparison)
    write_report(comparison, tmp_path / "new", "comparison")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert table["distilled"]["verdict"] == "significant gain"
    assert table["teacher"]["verdict"] == "one pair: no verdict"
    assert (table["alone"]["parameters"], table["alone"]["tokens/s"]) == ("400,000", "1,200")
    assert "Numbers of steps differ: 500, 2,000" in " ".join(text.split())
    assert "paired t-test over seeds" in " ".join(text.split())
    assert "comparisons (2)" in text
    assert text.endswith("    study.py")
    assert (tmp_path / "new" / "comparison.md").read_text() == text + "\n"
    file = tmp_path / "new" / "comparison.json"
    written = json.loads(file.read_text(), parse_constant=pytest.fail)
    verdicts = {each["name"]: (each["gain"] or {}).get("verdict") for each in written["methods"]}
    assert verdicts["distilled"] == "significant gain"
    page = (tmp_path / "new" / "comparison.html").read_text()
    for method in ComparisonView(comparison).told:
        assert f"{method.name} against alone, valid/accuracy: " in page.replace("<wbr>", "")
    assert page.count("<svg") == 2
