"""The experiments on tables train, are judged against baselines on the raw columns, and their runs predict."""

import json
import math

import pytest

from support.processes import run_here

SHORT = [
    "model.hidden_size=16",
    "model.num_layers=1",
    "model.num_heads=2",
    "model.intermediate_size=16",
    "trainer.epochs=null",
    "trainer.max_steps=2",
    "tracking=none",
]
BASELINES = {
    "wine": {"majority", "logistic_regression", "gradient_boosting", "tfidf_logistic_regression"},
    "diabetes": {"mean", "ridge_regression", "gradient_boosting", "tfidf_ridge_regression"},
}


@pytest.mark.parametrize("experiment", ["wine", "diabetes"])
def test_an_experiment_on_a_table_is_judged_against_its_baselines(tmp_path, experiment):
    assert train(experiment, tmp_path)["baselines"].keys() == BASELINES[experiment]


@pytest.mark.parametrize("experiment", ["breast_cancer", "digits"])
def test_an_experiment_on_a_larger_table_trains(tmp_path, experiment):
    assert train(experiment, tmp_path, "data.baselines=false")["baselines"] == {}


def train(experiment, folder, *overrides):
    """The metrics of a short run."""
    done = run_here(f"experiment={experiment}", *SHORT, *overrides, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "reach data.seq_len" not in done.stderr
    metrics = json.loads((folder / "metrics.json").read_text())
    assert math.isfinite(metrics["metrics"]["valid/loss"])
    return metrics
