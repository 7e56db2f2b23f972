"""Subjects of the step benchmark."""

import math

import pytest
from benchmarks.steps import step_subjects
from benchmarks.subject import language_model


@pytest.mark.parametrize("name", ["simple", "optimized"])
def test_steps_begin_at_the_loss_of_a_uniform_prediction_and_reduce_it(monkeypatch, name):
    monkeypatch.setattr(step_subjects, "RATE", 1e-2)
    model = language_model("bert", "nano", 64, num_layers=1, dropout=0.0)
    step, loss = step_subjects.mlxlab_step(name, model, step_subjects.Shape(length=8, vocabulary=64))
    initial = loss()
    assert initial == pytest.approx(math.log(64), abs=0.2)
    step()
    step()
    assert loss() < initial
