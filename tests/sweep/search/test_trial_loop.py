"""The trials of a study, with a function in place of training: samplers, interruptions, repeated points, files."""

import math
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxlab.config.hydra.search_space import Domain, Interval, Values, read_space
from mlxlab.errors import ConfigError, DataError
from mlxlab.sweep.pruning.pruner import NoPruner
from mlxlab.sweep.reports.search_result import best_trials
from mlxlab.sweep.search import optuna_sampler
from mlxlab.sweep.search.optuna_sampler import OptunaSampler, TPESampler, sampler_settings
from mlxlab.sweep.search.samplers import GridSampler, RandomSampler
from mlxlab.sweep.search.study import Study, StudySettings, open_study
from mlxlab.sweep.search.trial import Result, Trial, TrialResult
from mlxlab.sweep.search.trial_loop import OneByOne, run_trials

RATE = Interval("rate", 1e-5, 1e-3, log=True, integer=False)
LAYERS = Interval("layers", 1, 8, log=False, integer=True)
DROPOUT = Values("dropout", ("0", "0.1"), ordered=False)
WIDTH = Values("width", ("16", "32", "64"), ordered=True)
SPACE = [RATE, LAYERS, WIDTH]


def settings(space: list[Domain], sampler: str = "random", **changes: object) -> StudySettings:
    values = {
        "space": {domain.key: str(domain) for domain in space},
        "overrides": ["tracking=none"],
        "objectives": {"valid/loss": "minimize"},
        "sampler": sampler,
        "sampler_settings": {"seed": 0},
        "pruner": "none",
        "pruner_settings": {},
        "optuna": None,
    }
    return StudySettings(**(values | changes))


def new_sampler(name: str, space: list[Domain], trials: list[Trial], objectives: int = 1):
    if name == "random":
        return RandomSampler(space, seed=7)
    if name == "grid":
        return GridSampler(space)
    pytest.importorskip("optuna")
    arguments, directions = sampler_settings(name, space, 2, 4), ["minimize"] * objectives
    if name == "tpe":
        return TPESampler(arguments, 7, space, directions)
    return OptunaSampler(name, arguments, 7, space, directions, trials)


def loss(trial: Trial, _: bool = False) -> TrialResult:
    """Fails at width 32, as a run that does not fit into memory."""
    if trial.point.get("width") == "32":
        return TrialResult([], "out of memory")
    return TrialResult(
        [(math.log10(trial.point.get("rate", 1e-3)) + 4) ** 2 + trial.point.get("layers", 0)]
    )


def search(
    path: Path,
    name: str,
    space: list[Domain],
    num_trials: int,
    run: Callable[[Trial, bool], TrialResult] = loss,
) -> list[Trial]:
    with open_study(path, settings(space, name), space) as study:
        run_trials(
            study, new_sampler(name, space, study.trials), NoPruner(), num_trials, OneByOne(run)
        )
        return [Trial(**{**vars(trial), "seconds": 0.0}) for trial in study.trials]


@pytest.mark.parametrize("name", ["random", "tpe", "nsga", "cma"])
def test_an_interrupted_search_has_the_trials_of_an_uninterrupted_one(tmp_path, name):
    calls = []

    def interrupted(trial: Trial, again: bool) -> TrialResult:
        calls.append((trial.number, again))
        if len(calls) in (3, 8):
            raise KeyboardInterrupt
        return loss(trial)

    whole = search(tmp_path / "whole.db", name, SPACE, 12)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "s.db", name, SPACE, 12, interrupted)
    assert search(tmp_path / "s.db", name, SPACE, 12, interrupted) == whole
    assert len({str(trial.point) for trial in whole}) > 8
    assert {trial.state for trial in whole} == {"finished", "failed"}
    assert len(calls) == 14 - sum(trial.same_as is not None for trial in whole)
    assert sum(again for _, again in calls) == 2


@pytest.mark.parametrize("name", ["tpe", "cma"])
def test_a_model_based_sampler_comes_closer_than_its_first_trials(tmp_path, name):
    trials = search(tmp_path / "s.db", name, [RATE, LAYERS], 24)
    values = [trial.values[0] for trial in trials]
    assert min(values[12:]) < min(values[:4])


def test_other_proposals_than_recorded_restart_from_the_results_with_another_seed(tmp_path):
    pytest.importorskip("optuna")
    point = {"rate": 1e-4, "layers": 3, "width": "64"}
    other = [
        Trial(number, point, "finished", [0.5], known=number, results=[Result(number, None, [0.5])])
        for number in range(3)
    ]
    sampler = new_sampler("nsga", SPACE, other)
    assert not sampler.is_replayed
    assert [trial.values for trial in sampler.study.trials] == [[0.5]] * 3
    proposed = [sampler.propose(other), new_sampler("nsga", SPACE, []).propose([])]
    assert proposed[0] != proposed[1]


def test_a_point_that_is_proposed_again_takes_the_earlier_result(tmp_path):
    ran = []
    trials = search(
        tmp_path / "s.db", "tpe", [DROPOUT], 6, lambda trial, _: ran.append(trial) or loss(trial)
    )
    assert len(ran) == len({trial.point["dropout"] for trial in trials})
    for trial in trials:
        if trial.same_as is not None:
            assert (trial.point, trial.values) == (
                trials[trial.same_as].point,
                trials[trial.same_as].values,
            )


def test_a_grid_changes_the_last_key_fastest_and_random_draws_no_combination_twice(tmp_path):
    grid = [trial.point for trial in search(tmp_path / "g.db", "grid", [DROPOUT, WIDTH], 6)]
    assert grid[:3] == [{"dropout": "0", "width": width} for width in WIDTH.texts]
    random = [trial.point for trial in search(tmp_path / "r.db", "random", [DROPOUT, WIDTH], 6)]
    assert random != grid
    assert sorted(map(str, random)) == sorted(map(str, grid))


def test_random_numbers_keep_to_their_interval():
    whole = Interval("n", 1, 4, log=True, integer=True)
    points = [
        RandomSampler([RATE, whole], seed=0).propose([Trial(0, {})] * number)
        for number in range(300)
    ]
    assert {point["n"] for point in points} == {1, 2, 3, 4}
    rates = sorted(point["rate"] for point in points)
    assert 1e-5 <= rates[0] < 2e-5
    assert 5e-5 < rates[150] < 2e-4  # the median of a logarithmic scale


def test_the_best_of_several_objectives_are_those_that_no_other_trial_is_as_good_as(tmp_path):
    both = {"valid/loss": "minimize", "valid/accuracy": "maximize"}
    values = [[0.5, 0.7], [0.4, 0.6], [0.6, 0.6], [0.4, 0.6], [0.3, 0.5]]
    with open_study(tmp_path / "s.db", settings([RATE], objectives=both), [RATE]) as study:
        for each in values:
            study.finish(
                study.add({"rate": 1e-4 * (1 + len(study.trials))}), TrialResult(each), 0.0
            )
        assert [trial.number for trial in best_trials(study)] == [4, 1, 0]


def test_nsga_searches_several_objectives(tmp_path):
    both = settings(
        [RATE, LAYERS], objectives={"valid/loss": "minimize", "valid/accuracy": "maximize"}
    )
    with open_study(tmp_path / "s.db", both, [RATE, LAYERS]) as study:
        sampler = new_sampler("nsga", [RATE, LAYERS], [], objectives=2)
        jobs = OneByOne(lambda trial, _: TrialResult([trial.point["rate"], trial.point["layers"]]))
        run_trials(study, sampler, NoPruner(), 9, jobs)
        assert len(study.ended) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"space": {"rate": "interval(0,1)"}},
            "rate: got interval(0,1), the study searches tag(log, interval(",
        ),
        ({"space": {}}, "rate: got no values, the study searches"),
        ({"overrides": ["tracking=none", "seed=3"]}, "seed=3: not in the study"),
        ({"overrides": []}, "tracking=none: missing, but in the study"),
        (
            {"objectives": {"valid/loss": "maximize"}},
            "objective: got maximize valid/loss, that of the study is min",
        ),
        ({"sampler": "grid"}, "hydra.sweeper.sampler=grid: the study has random"),
        ({"sampler_settings": {"seed": 3}}, "seed=3: other settings of the sampler"),
        ({"pruner": "asha"}, "hydra.sweeper.pruner=asha: the study has none"),
        ({"pruner_settings": {"min_budget": 3}}, "hydra.sweeper.min_budget=3: the study has None"),
    ],
)
def test_the_study_of_another_search_is_refused_by_name(tmp_path, changes, message):
    search(tmp_path / "s.db", "random", [RATE], 2)
    other = StudySettings(**(settings([RATE]) | changes))
    with pytest.raises(ConfigError, match="choose another hydra") as refused:
        open_study(tmp_path / "s.db", other, [RATE]).__enter__()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "update trials set record = replace(record, '\"rate\": ', '\"rate\": 1')",
            "trial 0: rate: expected tag",
        ),
        (
            "update trials set record = replace(record, 'rate', 'seed')",
            "trial 0: expected the keys rate",
        ),
        (
            "update trials set record = replace(record, 'finished', 'running')",
            "0 values of a running trial, got 1",
        ),
        (
            "update trials set record = replace(record, '\"order\": 1', '\"order\": 0')",
            "results numbered from 0",
        ),
        (
            "update trials set record = json_set(record, '$.results', json('[]'))",
            "its last result is not that of",
        ),
        (
            "update trials set record = json_set(record, '$.results[0].values', json('[1,2]'))",
            "last result is not",
        ),
        ("update trials set record = substr(record, 2)", "trial 0: not valid JSON"),
        ("update trials set record = '[1]'", "trial 0: expected dict"),
        ("delete from trials where number = 0", "trial 0: missing; got number 1"),
        ("delete from attributes", "expected one row of attributes"),
        ("create view more as select 1", "expected the tables attributes and trials"),
    ],
)
def test_a_damaged_study_is_refused(tmp_path, statement, message):
    search(tmp_path / "s.db", "random", [RATE], 2)
    connection = sqlite3.connect(tmp_path / "s.db")
    with connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(DataError, match=r"s\.db") as refused:
        search(tmp_path / "s.db", "random", [RATE], 2)
    assert message in str(refused.value)


def test_a_file_that_is_no_database_is_refused_and_left(tmp_path):
    text = "a text that is long enough to be read as a page of a database\n" * 100
    (tmp_path / "s.db").write_text(text)
    with pytest.raises(DataError, match="not a study"):
        search(tmp_path / "s.db", "random", [RATE], 2)
    assert (tmp_path / "s.db").read_text() == text


def test_every_trial_is_in_the_file_before_the_next_is_proposed(tmp_path):
    def run(trial: Trial, _: bool) -> TrialResult:
        connection = sqlite3.connect(f"file:{tmp_path}/s.db?mode=ro", uri=True)
        states = [
            row[0]
            for row in connection.execute("select record ->> 'state' from trials order by number")
        ]
        connection.close()
        assert states == ["finished"] * trial.number + ["running"]
        return loss(trial)

    search(tmp_path / "s.db", "random", [RATE], 3, run)


@pytest.mark.parametrize("name", ["tpe", "cma", "nsga"])
def test_a_sampler_that_is_not_installed_is_named_with_its_remedy(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"needs optuna; pip install -e '.\[sweep\]'"):
        optuna_sampler.version(name)


@pytest.mark.parametrize(
    ("space", "message"),
    [([RATE, DROPOUT], "dropout: expected interval"), ([RATE], "2 or more keys, got rate alone")],
)
def test_cma_refuses_a_space_that_it_cannot_search(space, message):
    with pytest.raises(ConfigError, match="sampler=cma") as refused:
        sampler_settings("cma", space, 10, None)
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


def test_a_study_is_listed_by_number_and_state(tmp_path):
    with open_study(tmp_path / "s.db", settings([RATE]), [RATE]) as study:
        assert isinstance(study, Study)
        trial = study.add({"rate": 1e-4})
        assert study.unfinished == [trial]
        study.finish(trial, TrialResult([], "diverged"), 1.0)
        assert (study.unfinished, [each.reason for each in study.ended]) == ([], ["diverged"])
