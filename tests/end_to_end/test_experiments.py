"""The experiments of conf/ train: tables against their baselines, recipes for texts, Shakespeare by characters."""

import json
import math
import os

import pytest

from mlxlab.record.run_file import read_run
from support.processes import NO_PLOTS, final_state, run_here, succeed, succeed_here
from support.run_records import best_metrics
from support.titanic import real_rows

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
    args = ["experiment=wine", "model=bert", *SHORT, "model.num_heads=2", "data.seq_len=16"]
    done = run_here(*args, "data.baselines=false", f"hydra.run.dir={tmp_path}")
    record = read_run(tmp_path)
    [warning] = record.attempts[-1].warnings
    assert record.data.truncated_rows == record.data.measured_rows == 178
    assert warning.startswith("178 of 178 rows (100.0 %) are longer than data.seq_len=16 tokens")
    assert warning in done.stderr


def train(experiment, folder, *overrides):
    """The validation results of a short run."""
    done = succeed_here(f"experiment={experiment}", *SHORT, *overrides, f"hydra.run.dir={folder}")
    assert "rows are longer than data.seq_len" not in done.stderr
    result = read_run(folder).evaluation.results[0]
    assert math.isfinite(result.metrics["loss"])
    return result


SMALL = [*NO_PLOTS, "tracking=none", "trainer.max_steps=1", "trainer.eval_every=1"]
SMALL += ["trainer.eval_batches=1", "trainer.schedule.warmup=0", "data.prefetch=0"]
SMALL += ["data.seq_len=16"]
SHAPE = ["model.num_layers=1", "model.hidden_size=16", "model.num_heads=2"]
SHAPE += ["model.intermediate_size=16"]


@pytest.fixture
def text(tmp_path):
    records = [json.dumps({"text": f"Number {n} follows {n - 1}."}) for n in range(300)]
    (tmp_path / "books.jsonl").write_text("\n".join(records) + "\n")
    return [f"data.source={tmp_path}/books.jsonl", "data.tokenizer.vocab_size=300"]


@pytest.mark.fault_injection
@pytest.mark.parametrize(
    "experiment", ["quick", "standard", "limited_memory", "quality", "rapid", "cloud"]
)
def test_a_recipe_trains(experiment, text, tmp_path):
    data = ["data.source=synthetic", "data.baselines=false", "data.augment.copies=1"]
    data = data if experiment in ("quick", "standard") else text
    cloud = ["cloud=directory", f"cloud.path={tmp_path}/store"] if experiment == "cloud" else []
    args = [f"experiment={experiment}", *SMALL, *SHAPE, *data, *cloud]
    assert final_state(succeed_here(*args, f"hydra.run.dir={tmp_path}/run"))


def test_the_growth_course_grows_a_decoder_to_size_nano(text):
    done = succeed_here("experiment=growth_course", *text, "--dry-run")
    assert "map=[0, 0, 0, 1, 1, 2]" in done.stdout


SHAKESPEARE = ["experiment=shakespeare_char", "tracking=none"]


def test_shakespeare_char_trains_on_characters_and_validates_on_the_end_of_the_text(tmp_path):
    text = tmp_path / "text.txt"
    rows = [f"{row.name}: ticket {row.ticket}" for row in real_rows() if row.name.isascii()]
    text.write_text("\n".join(rows))
    shorter = ["trainer.max_steps=2", "trainer.eval_every=2", "trainer.schedule.warmup=1"]
    shorter += ["data.prefetch=0"]
    succeed_here(*SHAKESPEARE, *shorter, f"data.source={text}", f"hydra.run.dir={tmp_path / 'run'}")
    metrics = {"valid/loss", "valid/perplexity", "valid/bits_per_byte"}
    assert best_metrics(tmp_path / "run").keys() == metrics
    tokenizer = json.loads((tmp_path / "run" / "inference" / "tokenizer.json").read_text())
    assert len(tokenizer["model"]["vocab"]) == 4 + len(set(text.read_text()))


@pytest.mark.fault_injection
@pytest.mark.skipif(
    not os.environ.get("MLXLAB_SHAKESPEARE"),
    reason="MLXLAB_SHAKESPEARE names no tinyshakespeare.txt",
)
def test_shakespeare_char_reaches_the_published_loss(tmp_path):
    source = f"data.source={os.environ['MLXLAB_SHAKESPEARE']}"
    succeed(*SHAKESPEARE, source, f"hydra.run.dir={tmp_path}")
    assert read_run(tmp_path).training.final["valid/loss"] <= 1.88
