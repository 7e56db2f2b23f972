"""Which trials are promoted and pruned, with a function in place of training."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from mlxlab.config.hydra.search_space import Interval, Values
from mlxlab.errors import ConfigError
from mlxlab.sweep.pruning.pruner import MedianPruner
from mlxlab.sweep.pruning.settings import read_pruning
from mlxlab.sweep.pruning.successive_halving import SuccessiveHalving
from mlxlab.sweep.search.optuna_sampler import TPESampler, sampler_settings
from mlxlab.sweep.search.samplers import RandomSampler
from mlxlab.sweep.search.study import StudySettings, open_study
from mlxlab.sweep.search.trial import Result, Trial, TrialResult
from mlxlab.sweep.search.trial_loop import OneByOne, run_trials

X = Interval("x", 0.0, 1.0, log=False, integer=False)
LENGTH, FAILS_FROM = 27, 0.8


def loss(trial: Trial) -> TrialResult:
    """Falls with the budget, to x at the end; some trials fail."""
    budget = trial.budget or LENGTH
    if trial.point["x"] > FAILS_FROM:
        return TrialResult([], "diverged", step=budget)
    state = "finished" if trial.budget is None else "paused"
    return TrialResult([trial.point["x"] + 1 / budget - 1 / LENGTH], "", state, budget)


def search(
    path, pruner, num_trials: int, run: Callable[[Trial, bool], TrialResult], sampler=None
) -> list[Trial]:
    settings: StudySettings = {
        "space": {"x": str(X)},
        "overrides": [],
        "objectives": {"valid/loss": "minimize"},
        "sampler": "random",
        "sampler_settings": {},
        "pruner": "asha",
        "pruner_settings": {},
        "optuna": None,
    }
    with open_study(path, settings, [X]) as study:
        run_trials(study, sampler or RandomSampler([X], 0), pruner, num_trials, OneByOne(run))
        return [Trial(**{**vars(trial), "seconds": 0.0}) for trial in study.trials]


@pytest.mark.parametrize("name", ["asha", "hyperband", "tpe"])
def test_a_search_that_is_interrupted_at_any_instant_has_the_same_rungs(tmp_path, name):
    pruner = SuccessiveHalving([3, 9], 3, "minimize", num_brackets=3 if name == "hyperband" else 1)
    sampler = None
    if name == "tpe":
        pytest.importorskip("optuna")
        sampler = TPESampler(sampler_settings("tpe", [X], 4, None), 0, [X], ["minimize"])
    whole = search(tmp_path / "whole.db", pruner, 12, lambda trial, _: loss(trial), sampler)
    draw = random.Random(0)

    def interrupted(trial: Trial, continues: bool) -> TrialResult:
        if draw.random() < 0.4:
            raise KeyboardInterrupt
        return loss(trial)

    for _ in range(200):
        try:
            trials = search(tmp_path / "s.db", pruner, 12, interrupted, sampler)
            break
        except KeyboardInterrupt:
            continue
    assert trials == whole
    assert {trial.state for trial in whole} == {"finished", "paused", "failed"}


def test_a_third_of_each_rung_is_promoted_and_the_best_trial_ends(tmp_path):
    calls = []
    asha = SuccessiveHalving([3, 9], 3, "minimize", num_brackets=1)
    trials = search(
        tmp_path / "s.db",
        asha,
        30,
        lambda trial, again: calls.append((trial, again)) or loss(trial),
    )
    reached = Counter(
        result.budget for trial in trials for result in trial.results if result.values
    )
    assert reached[3] == sum(trial.point["x"] <= FAILS_FROM for trial in trials)
    assert reached[3] // 3 <= reached[9] <= reached[3] // 2
    assert reached[9] // 3 <= reached[None] <= reached[9] // 2
    best = min(trials, key=lambda trial: trial.point["x"])
    assert (best.state, [result.budget for result in best.results]) == ("finished", [3, 9, None])
    assert [again for trial, again in calls] == [trial.budget != 3 for trial, _ in calls]
    steps = sum(trial.step for trial in trials)
    assert steps <= 0.4 * 30 * LENGTH


def paused(number: int, *values: float, budgets=(1, 3, 9, None)) -> Trial:
    """A trial with these values at its rungs so far."""
    results = [Result(10 * number + i, budgets[i], [value]) for i, value in enumerate(values)]
    state = "finished" if results[-1].budget is None else "paused"
    return Trial(number, {}, state, [values[-1]], budget=results[-1].budget, results=results)


def test_the_highest_rung_is_promoted_first_and_of_equal_trials_the_earlier():
    asha = SuccessiveHalving([1, 3, 9], 2, "maximize", num_brackets=1)
    low = [paused(0, 0.5), paused(1, 0.7), paused(2, 0.7), paused(3, 0.1)]
    assert asha.promotion(low, is_last=False) == (low[1], 3)
    high = [*low[:2], paused(2, 0.7, 0.8), paused(3, 0.9, 0.75)]
    assert asha.promotion(high, is_last=False) == (high[2], 9)
    assert asha.promotion(low[:1], is_last=False) is None


def test_a_search_with_too_few_trials_for_its_rungs_still_trains_one_to_the_end():
    asha = SuccessiveHalving([1, 3], 3, "minimize", num_brackets=1)
    trials = [paused(0, 0.5), paused(1, 0.4)]
    assert asha.promotion(trials, is_last=False) is None
    assert asha.promotion(trials, is_last=True) == (trials[1], 3)
    trials[1] = paused(1, 0.4, 0.6)
    assert asha.promotion(trials, is_last=True) == (trials[1], None)
    trials[1] = paused(1, 0.4, 0.6, 0.7, budgets=(1, 3, None))
    assert asha.promotion(trials, is_last=True) is None


def test_a_run_that_ends_before_a_rung_counts_in_it():
    asha = SuccessiveHalving([1, 3], 2, "minimize", num_brackets=1)
    short = Trial(0, {}, "finished", [0.2], budget=1, results=[Result(0, 1, [0.2])])
    other = paused(1, 0.5, 0.4)
    assert asha.promotion([short, other], is_last=False) is None
    assert asha.promotion([paused(0, 0.6, 0.6), other], is_last=False) == (other, None)


def test_hyperband_distributes_trials_by_the_shares_of_its_brackets():
    hyperband = SuccessiveHalving([1, 3, 9], 3, "minimize", num_brackets=4)
    counts = Counter(hyperband.first_budget(number) for number in range(49))
    assert counts == {1: 27, 3: 12, 9: 6, None: 4}  # Li et al. 2018, table 1 with R = 27
    assert hyperband.first_budget(0) == 1


def test_the_limit_is_the_median_of_the_best_values_of_complete_trials():
    curves = [[0.9, 0.5, 0.6], [0.8, 0.7], [0.7, 0.9], [None, 0.4], [0.6, 0.3], [0.5, 0.2]]
    trials = [Trial(n, {}, "finished", [0.1], evaluations=curve) for n, curve in enumerate(curves)]
    trials.append(Trial(6, {}, "pruned", [0.1], evaluations=[0.0, 0.0]))
    median = MedianPruner("minimize")
    assert median.limits(trials) == [0.7, pytest.approx(0.45), None]
    assert median.limits(trials[:4]) == [None] * 3
    assert MedianPruner("maximize").limits(trials)[1] == pytest.approx(0.7)


def read(name: str = "asha", *, trainer: dict | None = None, space=(X,), **changes: object):
    config = OmegaConf.create(
        {"trainer": {"max_steps": None, "epochs": 27, "eval_every": None, **(trainer or {})}}
    )
    keys = {"unit": None, "min_budget": None, "max_budget": None, "reduction_factor": 3, **changes}
    return read_pruning(name, **keys, config=config, space=list(space), direction="minimize")


@pytest.mark.parametrize(
    ("changes", "budgets", "unit"),
    [
        ({}, [1, 3, 9], "epochs"),
        ({"min_budget": 2}, [3, 9], "epochs"),
        ({"max_budget": 10}, [1, 3], "epochs"),
        ({"trainer": {"epochs": "auto"}}, [2], "epochs"),
        ({"trainer": {"max_steps": 800, "eval_every": 60}}, [89, 267], "steps"),
        (
            {"trainer": {"max_steps": 800}, "unit": "epochs", "reduction_factor": 2},
            [3, 7, 14],
            "epochs",
        ),
    ],
)
def test_rungs_are_the_length_of_a_run_divided_by_powers_of_the_factor(changes, budgets, unit):
    pruning = read(**changes)
    assert (pruning.pruner.brackets, pruning.unit) == ([[*budgets, None]], unit)
    length = changes.get("max_budget") or (5 if changes.get("trainer", {}).get("epochs") else None)
    assert pruning.overrides == ((f"trainer.epochs={length}",) if length else ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trainer": {"epochs": None}},
            "max_budget: expected a number of epochs, since trainer.epochs is not set",
        ),
        ({"min_budget": 20}, "min_budget=20: no rung before the end of a run of 27"),
        (
            {"trainer": {"max_steps": 90, "eval_every": 10}, "min_budget": 5},
            "expected trainer.eval_every=10 or more",
        ),
        (
            {"space": [Values("trainer.epochs", ("1", "2"), ordered=False)]},
            "trainer.epochs: expected one value",
        ),
    ],
)
def test_budgets_that_do_not_fit_the_run_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        read(**changes)
