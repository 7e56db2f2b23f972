"""Which trials are promoted and pruned, with a function in place of training."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlxlab.errors import ConfigError
from mlxlab.sweep.pruning import SuccessiveHalving, read_pruning
from mlxlab.sweep.search_space import split_space
from support.searches import LENGTH, SETTINGS, Point, run_search

[X] = split_space(OverridesParser.create().parse_overrides(["x=interval(0,1)"]))[1]
EPOCHS = replace(X, key="trainer.epochs")
SPACE = ["x=interval(0,1)"]
FAILS_FROM = 0.8


def loss(point: Point, budget: int, again: bool = False) -> list[float] | str:
    """Falls with the budget, to x at the end; some trials fail."""
    x = float(point["x"])
    return "diverged" if x > FAILS_FROM else [x + 1 / budget - 1 / LENGTH]


@pytest.mark.parametrize(
    "sampler",
    ["random", "tpe"],
)
def test_a_search_that_is_interrupted_at_any_instant_has_the_same_rungs(tmp_path, sampler):
    settings = {"pruner": "asha", "sampler": sampler, "trials": 12, "min_budget": 3}
    whole = run_search(tmp_path / "whole", SPACE, loss, **settings)
    draw = random.Random(0)

    def interrupted(point, budget, again):
        if draw.random() < 0.4:
            raise KeyboardInterrupt
        return loss(point, budget)

    for _ in range(200):
        try:
            trials = run_search(tmp_path / "s", SPACE, interrupted, **settings)
            break
        except KeyboardInterrupt:
            continue
    assert trials == whole
    assert {trial.state for trial in whole} == {"COMPLETE", "PAUSED", "FAIL"}


def test_a_third_of_each_rung_is_promoted_and_the_best_trial_ends(tmp_path):
    calls = []

    def run(point, budget, again):
        calls.append((budget, again))
        return loss(point, budget)

    settings = {"pruner": "asha", "trials": 30, "min_budget": 3, "seed": 1}
    trials = run_search(tmp_path / "s", SPACE, run, **settings)
    reached = Counter(budget for trial in trials for budget in trial.rungs)
    finished = sum(trial.state == "COMPLETE" for trial in trials)
    assert reached[3] == sum(trial.point["x"] <= FAILS_FROM for trial in trials)
    assert reached[3] // 3 <= reached[9] <= reached[3] // 2
    assert reached[9] // 3 <= finished <= reached[9] // 2
    best = min(trials, key=lambda trial: trial.point["x"])
    assert (best.state, list(best.rungs)) == ("COMPLETE", [3, 9])
    assert all(again == (budget != 3) for budget, again in calls)
    steps = sum(
        LENGTH if trial.state == "COMPLETE" else max(trial.rungs, default=0) for trial in trials
    )
    assert steps <= 0.4 * 30 * LENGTH


def new_trial(number: int, rungs: dict, budget: int | None, **options: object) -> FrozenTrial:
    trial = create_trial(intermediate_values=rungs, user_attrs={"budget": budget}, **options)
    trial.number = number
    return trial


def paused(number: int, *values: float, budgets=(1, 3, 9)) -> FrozenTrial:
    """A trial with these values at its rungs so far."""
    rungs = dict(zip(budgets, values, strict=False))
    return new_trial(number, rungs, [*rungs][-1], state=TrialState.RUNNING)


def test_the_highest_rung_is_promoted_first_and_of_equal_trials_the_earlier():
    asha = SuccessiveHalving([1, 3, 9], 2, sign=-1)
    low = [paused(0, 0.5), paused(1, 0.7), paused(2, 0.7), paused(3, 0.1)]
    assert asha.promotion(low, is_last=False) == (1, 3)
    high = [*low[:2], paused(2, 0.7, 0.8), paused(3, 0.9, 0.75)]
    assert asha.promotion(high, is_last=False) == (2, 9)
    assert asha.promotion(low[:1], is_last=False) is None


def read(*, trainer: dict | None = None, space=(X,), **changes: object):
    lengths = {"max_steps": None, "epochs": 27, "eval_every": None, **(trainer or {})}
    config = OmegaConf.create({"trainer": lengths})
    settings = {**SETTINGS, "pruner": "asha", **changes}
    return read_pruning(settings, config, list(space), "valid/loss")


@pytest.mark.parametrize(
    ("changes", "budgets", "unit"),
    [
        ({}, [1, 3, 9], "epochs"),
        ({"min_budget": 2}, [3, 9], "epochs"),
        ({"trainer": {"epochs": "auto"}}, [2], "epochs"),
        ({"trainer": {"max_steps": 800, "eval_every": 60}}, [89, 267], "steps"),
        ({"reduction_factor": 2}, [3, 7, 14], "epochs"),
    ],
)
def test_rungs_are_the_length_of_a_run_divided_by_powers_of_the_factor(changes, budgets, unit):
    pruning = read(**changes)
    assert (pruning.halving.rungs, pruning.unit) == ([*budgets, None], unit)
    is_auto = changes.get("trainer", {}).get("epochs") == "auto"
    assert pruning.overrides == (("trainer.epochs=5",) if is_auto else ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"epochs": None}}, "trainer.epochs: expected one value, since"),
        ({"min_budget": 20}, "min_budget=20: no rung before the end of a run of 27"),
        ({"space": [EPOCHS]}, "trainer.epochs: expected one value"),
    ],
)
def test_budgets_that_do_not_fit_the_run_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        read(**changes)
