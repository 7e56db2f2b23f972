"""The trials of a search, with a function in place of training: samplers, interruptions, repeated points, files."""

import json
import math
import os
from pathlib import Path

import pytest

from mlxlab.config.hydra.search_space import read_space
from mlxlab.errors import ConfigError, DataError
from mlxlab.sweep.reports.search_result import SearchResult
from mlxlab.sweep.study import Study, Trial, open_study
from support.searches import Point, new_search, run_search

RATE = "rate=tag(log,interval(1e-5,1e-3))"
LAYERS = "layers=int(interval(1,8))"
DROPOUT = "dropout=0,0.1"
WIDTH = "width=range(16,49,16)"
SPACE = [RATE, LAYERS, WIDTH]
BOTH = ["valid/loss", "valid/accuracy"]


def loss(point: Point, budget: int = 0, again: bool = False) -> list[float] | str:
    """Fails at width 32, as a run that does not fit into memory."""
    if point.get("width") == "32":
        return "out of memory"
    return [(math.log10(float(point.get("rate", 1e-3))) + 4) ** 2 + int(point.get("layers", 0))]


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga"])
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
    assert {trial.state for trial in whole} == {"finished", "failed"}
    assert len(calls) == 14 - sum(trial.same_as is not None for trial in whole)
    assert sum(calls) == 2


@pytest.mark.parametrize("sampler", ["tpe", "nsga"])
def test_a_journal_that_is_cut_off_anywhere_is_continued(tmp_path, sampler):
    settings = {"sampler": sampler, "trials": 5}
    whole = run_search(tmp_path / "s", SPACE, loss, **settings)
    content = (tmp_path / "s" / "study.jsonl").read_bytes()
    (tmp_path / "s" / "study.jsonl.lock").write_text("of a process that was killed")
    for length in range(0, len(content), len(content) // 17):
        (tmp_path / "s" / "study.jsonl").write_bytes(content[:length])
        assert run_search(tmp_path / "s", SPACE, loss, **settings) == whole


def test_a_kill_leaves_no_link_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "symlink")
    assert len(run_search(tmp_path / "s", [RATE], loss, trials=2)) == 2


def test_a_model_based_sampler_comes_closer_than_its_first_trials(tmp_path):
    trials = run_search(tmp_path / "s", [RATE, LAYERS], loss, sampler="tpe", trials=24)
    values = [trial.values[0] for trial in trials]
    assert min(values[12:]) < min(values[:4])


def test_a_point_that_is_proposed_again_takes_the_earlier_result(tmp_path):
    ran = []
    trials = run_search(
        tmp_path / "s",
        [DROPOUT],
        lambda point, *_: ran.append(point) or loss(point),
        sampler="tpe",
        trials=6,
    )
    assert len(ran) == len({trial.point["dropout"] for trial in trials})
    for trial in trials:
        if trial.same_as is not None:
            source = trials[trial.same_as]
            assert (trial.point, trial.values) == (source.point, source.values)


def test_a_grid_changes_the_last_key_fastest_and_random_draws_no_combination_twice(tmp_path):
    space = [DROPOUT, WIDTH]
    grid = [each.point for each in run_search(tmp_path / "g", space, loss, sampler="grid")]
    assert grid[:3] == [{"dropout": "0", "width": width} for width in ("16", "32", "48")]
    random = [each.point for each in run_search(tmp_path / "r", space, loss)]
    assert random != grid
    assert sorted(map(str, random)) == sorted(map(str, grid))


def test_every_trial_is_in_the_file_before_the_next_is_proposed(tmp_path):
    numbers = iter(range(3))

    def run(point, *_):
        number = next(numbers)
        states = [trial.state for trial in Study(tmp_path / "s" / "study.jsonl").trials()]
        assert states == ["finished"] * number + ["running"]
        return loss(point)

    run_search(tmp_path / "s", [RATE], run, trials=3)


def test_the_best_of_several_objectives_are_those_that_no_other_trial_is_as_good_as(tmp_path):
    values = iter([[0.5, 0.7], [0.4, 0.6], [0.6, 0.6], [0.4, 0.6], [0.3, 0.5]])
    settings = {"sampler": "nsga", "objectives": BOTH, "trials": 5}
    trials = run_search(tmp_path / "s", [RATE], lambda *_: next(values), **settings)
    question = Study(tmp_path / "s" / "study.jsonl").question
    assert [trial.number for trial in SearchResult(question, trials).best()] == [4, 1, 0]


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (["rate=interval(0,1)"], {}, "rate: got interval(0.0,1.0), the study has tag(log"),
        ([DROPOUT], {}, "dropout: got 0,0.1, the study has no values"),
        ([RATE], {"objectives": BOTH}, "objective: got minimize valid/loss, maximize valid/acc"),
        ([RATE], {"sampler": "tpe"}, "hydra.sweeper.sampler: got tpe, the study has random"),
        ([RATE], {"seed": 3}, "hydra.sweeper.seed: got 3, the study has 0"),
        ([RATE], {"pruner": "asha"}, "hydra.sweeper.pruner: got asha, the study has none"),
    ],
)
def test_the_study_of_another_search_is_refused_by_name(tmp_path, space, settings, message):
    run_search(tmp_path / "s", [RATE], loss, trials=2)
    other = new_search(tmp_path / "s", space, loss, **settings)
    with pytest.raises(ConfigError, match="choose another hydra") as refused:
        open_study(tmp_path / "s", other.question)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (2, '\\"high\\": 0.001', '\\"high\\": 0.1', "trial 0: expected the keys and values"),
        (2, '\\"low\\": 1e-05', '\\"low\\": 0.9', "not the journal of a search"),
        (2, '"params"', '"parms"', "trial 0: expected the keys and values"),
        (2, '"rate"', '"seed"', "trial 0: expected the keys and values"),
        (3, '"values"', '"value"', "result: 'values' is missing"),
        (3, '"step":0', '"step":-1', "result: step: expected"),
        (1, '"space"', '"spaces"', "question: 'space' is missing"),
        (0, '"search"', '"other"', "not the journal of a search"),
        (0, "{", "[", "not the journal of a search"),
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


def test_hydras_grammar_is_read_as_a_search_space():
    texts = [
        "seed=3",
        "model=bert,cnn_hybrid",
        "a=range(0,4,2)",
        "b=interval(0,1)",
        "c=int(interval(1,8))",
    ]
    fixed, space = read_space(
        [*texts, "d=tag(log,interval(1e-5,1e-3))"], {"e": "choice('x y',2)", "a": "1,2"}
    )
    assert fixed == ["seed=3"]
    assert {domain.key: str(domain) for domain in space} == {
        "e": "x\\ y,2",
        "a": "0,2 (ordered)",  # the command line comes after the file
        "model": "bert,cnn_hybrid",
        "b": "interval(0.0,1.0)",
        "c": "int(interval(1,8))",
        "d": "tag(log, interval(1e-05,0.001))",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=tag(lag,interval(0,1))", "unknown tag lag; expected log"),
        (
            "a=tag(log,interval(0,1))",
            "expected a lower end above 0 on a logarithmic scale, got 0.0",
        ),
        ("a=interval(0.2,0.1)", "expected interval(low,high) with low < high, got 0.2 and 0.1"),
        ("a=shuffle(0,1)", "the sampler chooses the order"),
        ("a=range(0,100000)", "expected 1 to 10,000 values, got more"),
        ("a=range(0)", "expected 1 to 10,000 values, got none"),
        ("model=glob(*)", "give the options by name"),
        ("objective=valid/loss,valid/f1", "give one metric"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_by_its_override(text, message):
    with pytest.raises(ConfigError) as refused:
        read_space([text], {})
    assert str(refused.value).startswith(f"{text}: ")
    assert message in str(refused.value)


def test_trials_have_values_only_when_they_have_ended():
    result = {"values": [0.5], "reason": "", "state": "paused", "step": 3}
    result |= {"evaluations": [], "seconds": 1.0}
    trial = Trial(0, {}, "running", None, {3: 0.5}, [], None, result)
    assert (trial.values, trial.step) == ([], 3)
