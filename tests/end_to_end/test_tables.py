"""The experiments on tables train, are judged against baselines on the raw columns, and their runs predict."""

import math

import pytest

from mlxlab.record.run_file import read_run
from support.processes import NO_PLOTS, run_here, succeed_here

SHORT = ["model.hidden_size=16", "model.num_layers=1", "trainer.epochs=null", "trainer.max_steps=2"]
SHORT += ["tracking=none", *NO_PLOTS]
BASELINES = {
    "wine": {"majority", "logistic_regression", "gradient_boosting"},
    "diabetes": {"mean", "ridge_regression", "gradient_boosting"},
}


@pytest.mark.parametrize("experiment", ["wine", "diabetes"])
def test_an_experiment_on_a_table_is_judged_against_its_baselines(tmp_path, experiment):
    assert train(experiment, tmp_path).baselines.keys() == BASELINES[experiment]


@pytest.mark.parametrize("experiment", ["breast_cancer", "digits"])
def test_an_experiment_on_a_larger_table_trains(tmp_path, experiment):
    assert train(experiment, tmp_path, "data.baselines=false").baselines == {}


def test_a_run_that_truncates_many_rows_warns_and_records_it(tmp_path):
    done = run_here(
        "experiment=wine",
        "model=bert",
        *SHORT,
        "model.num_heads=2",
        "data.baselines=false",
        "data.seq_len=16",
        f"hydra.run.dir={tmp_path}",
    )
    record = read_run(tmp_path)
    [warning] = record.attempts[-1].warnings
    assert record.data.truncated_rows == record.data.measured_rows == 178
    assert warning.startswith(
        "178 of 178 rows (100.0 %) are longer than data.seq_len=16 tokens and are truncated; "
    )
    assert warning in done.stderr


def train(experiment, folder, *overrides):
    """The validation results of a short run."""
    done = succeed_here(f"experiment={experiment}", *SHORT, *overrides, f"hydra.run.dir={folder}")
    assert "rows are longer than data.seq_len" not in done.stderr
    result = read_run(folder).evaluation.results[0]
    assert math.isfinite(result.metrics["loss"])
    return result
