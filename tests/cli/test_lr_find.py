"""The learning-rate range test: the rates, the suggestion, and that only the plot is written."""

from functools import partial

import numpy as np
import pytest

from mlxlab.training.lr_finder import (
    exponential_lr,
    find_learning_rate,
    smoothed,
    suggest_learning_rate,
)
from mlxlab.training.steps.step import PlainStep
from support.commands import command
from support.models import TASK, RandomBatches, make_model, make_trainer
from support.processes import run, tiny_overrides

main = command("lr_find")


def test_the_rate_rises_by_the_same_factor_each_step():
    rates = [exponential_lr(1e-6, 1e-1, 51)(step).item() for step in range(51)]
    assert rates[0] == pytest.approx(1e-6, rel=1e-4)
    assert rates[-1] == pytest.approx(1e-1, rel=1e-4)
    np.testing.assert_allclose(np.diff(np.log(rates)), np.log(1e5) / 50, rtol=1e-3)


def test_the_suggestion_is_where_the_loss_falls_most_steeply():
    rates = np.geomspace(1e-6, 1, 400)
    losses = 2 - 1 / (1 + (1e-3 / rates) ** 2) + np.where(rates > 0.03, 100 * (rates - 0.03), 0)
    assert 7e-4 < suggest_learning_rate(rates, losses) < 4e-3  # the smoothing looks back
    assert suggest_learning_rate(rates, np.linspace(1, 2, 400)) is None
    assert suggest_learning_rate(rates[:3], losses[:3]) is None


def test_smoothing_has_no_bias_at_the_start():
    np.testing.assert_allclose(smoothed([3.0] * 5), 3.0)


def test_the_search_uses_the_step_of_the_trainer_and_ends_when_the_loss_diverges():
    wide = {"start": 1e-4, "end": 1e6, "steps": 200, "seed": 0}
    trainer = make_trainer(step=partial(PlainStep, max_grad_norm=None))
    model = make_model(dropout=0.0)
    curve = find_learning_rate(trainer, model, RandomBatches(rows=22), TASK, **wide)
    assert 20 < len(curve.rates) < 200
    assert curve.rates == sorted(curve.rates)
    narrow = {"start": 1e-4, "end": 1e-1, "steps": 30, "seed": 0}
    model = make_model(dropout=0.0)
    again = find_learning_rate(make_trainer(), model, RandomBatches(), TASK, **narrow)
    assert len(again.rates) == 30


def test_the_program_writes_its_plot_and_nothing_else(tmp_path):
    overrides = tiny_overrides("model.num_layers=1", "data.augment.copies=1")
    overrides = [arg for arg in overrides if not arg.startswith(("trainer.max", "trainer.eval"))]
    finished = run(
        *overrides, f"out={tmp_path}/range.png", "steps=12", script="lr_find", fresh=True
    )
    assert finished.returncode == 0, finished.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["range.png"]
    assert (tmp_path / "range.png").read_bytes()[:4] == b"\x89PNG"
    assert "12 steps" in finished.stdout
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("start=2", "expected start < end"),
        ("out=x.xyz", "ends in .png"),
        ("steps=3", "expected a whole number >= 10"),
        ("end=inf", "expected a number > 0"),
        ("trainer.epoch=3", "trainer.epoch=3: unknown key; did you mean trainer.epochs?"),
    ],
)
def test_invalid_options_are_refused_in_one_line(arg, message, capsys):
    assert main([arg]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
