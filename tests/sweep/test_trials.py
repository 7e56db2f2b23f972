"""The trials of a search, with a function in place of training: samplers, interruptions, repeated points, files."""

import json
import math
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from mlxlab.errors import ConfigError, DataError
from mlxlab.sweep.search_space import split_space
from support.searches import Point, run_search

RATE = "rate=tag(log,interval(1e-5,1e-3))"
LAYERS = "layers=int(interval(1,8))"
DROPOUT = "dropout=0,0.1"
WIDTH = "width=range(16,49,16)"
SPACE = [RATE, LAYERS, WIDTH]


def loss(point: Point, budget: int = 0, again: bool = False) -> list[float] | str:
    """Fails at width 32, as a run that does not fit into memory."""
    if point.get("width") == "32":
        return "out of memory"
    return [(math.log10(float(point.get("rate", 1e-3))) + 4) ** 2 + int(point.get("layers", 0))]


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_interrupted_search_has_the_trials_of_an_uninterrupted_one(tmp_path, sampler):
    calls = []

    def interrupted(point, budget, again):
        calls.append(again)
        if len(calls) in (3, 8):
            raise KeyboardInterrupt
        return loss(point)

    settings = {"sampler": sampler, "trials": 12}
    whole = run_search(tmp_path / "whole", SPACE, loss, **settings)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_search(tmp_path / "s", SPACE, interrupted, **settings)
    assert run_search(tmp_path / "s", SPACE, interrupted, **settings) == whole
    assert len({str(trial.point) for trial in whole}) > 8
    assert {trial.state for trial in whole} == {"COMPLETE", "FAIL"}
    assert len(calls) == 14
    assert sum(calls) == 2


def test_a_journal_that_is_cut_off_anywhere_is_continued(tmp_path):
    settings = {"sampler": "tpe", "trials": 5}
    whole = run_search(tmp_path / "s", SPACE, loss, **settings)
    content = (tmp_path / "s" / "study.jsonl").read_bytes()
    (tmp_path / "s" / "study.jsonl.lock").write_text("of a process that was killed")
    for length in range(0, len(content), len(content) // 17):
        (tmp_path / "s" / "study.jsonl").write_bytes(content[:length])
        assert run_search(tmp_path / "s", SPACE, loss, **settings) == whole


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_no_point_is_proposed_twice(tmp_path, sampler):
    trials = run_search(
        tmp_path / "s", [DROPOUT, "layers=int(interval(1,4))"], loss, sampler=sampler, trials=20
    )
    assert len({str(trial.point) for trial in trials}) == len(trials) == 8


def test_random_draws_each_combination_of_a_finite_space_once(tmp_path):
    points = [each.point for each in run_search(tmp_path / "s", [DROPOUT, WIDTH], loss)]
    drawn = {(point["dropout"], point["width"]) for point in points}
    assert drawn == {(dropout, width) for dropout in ("0", "0.1") for width in (16, 32, 48)}
    assert len(points) == 6


def test_every_trial_is_in_the_file_before_the_next_is_proposed(tmp_path):
    numbers = iter(range(3))

    def run(point, *_):
        number = next(numbers)
        states = [line["state"] for line in journal(tmp_path / "s") if "state" in line]
        assert states.count(TrialState.RUNNING) == number + 1
        assert states.count(TrialState.COMPLETE) == number
        return loss(point)

    run_search(tmp_path / "s", [RATE], run, trials=3)


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (1, '\\"high\\": 0.001', '\\"high\\": 0.1', "trial 0: expected the keys and values"),
        (1, '\\"low\\": 1e-05', '\\"low\\": 0.9', "not the journal of this search"),
        (1, '"rate"', '"seed"', "trial 0: expected the keys and values"),
        (1, '"budget"', '"budgets"', "trial 0: 'budget' is missing"),
        (0, "{", "[", "not the journal of this search"),
    ],
)
def test_a_damaged_study_is_refused(tmp_path, line, old, new, message):
    run_search(tmp_path / "s", [RATE], loss, trials=2)
    path = tmp_path / "s" / "study.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    path.write_text("".join(lines))
    with pytest.raises(DataError, match=r"study\.jsonl") as refused:
        run_search(tmp_path / "s", [RATE], loss, trials=2)
    assert message in str(refused.value)


def split(*texts: str):
    return split_space(OverridesParser.create().parse_overrides([*texts]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("choice('x y',2)", CategoricalDistribution(("x\\ y", "2"))),
        ("range(0,4,2)", IntDistribution(0, 2, step=2)),
        ("range(0.5,0.05,-0.1)", FloatDistribution(0.1, 0.5, step=0.1)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
    ],
)
def test_hydras_grammar_is_read_as_a_search_space(values, expected):
    fixed, [domain] = split("seed=3", f"key={values}")
    assert fixed == ["seed=3"]
    assert (domain.key, domain.distribution) == ("key", expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=tag(lag,interval(0,1))", "expected tag(log, ...), got lag"),
        ("a=tag(log,interval(0,1))", "`low > 0` must hold for `log=True`"),
        ("a=interval(0.2,0.1)", "expected interval(low,high) with low < high, got 0.2 and 0.1"),
        ("a=shuffle(0,1)", "without shuffle(...) and tag(...)"),
        ("a=range(0,100000)", "expected 1 to 10,000 values, got more"),
        ("model=glob(*)", "expected the options by name"),
        ("objective=valid/loss,valid/f1", "expected one metric"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_by_its_override(text, message):
    with pytest.raises(ConfigError) as refused:
        split(text)
    assert str(refused.value).startswith(f"{text}: ")
    assert message in str(refused.value)
