"""What must hold of the parts; each of them trains two steps."""

import csv
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlxlab.training.device_batch import DeviceBatch

from own_parts.dataset import read_reviews
from own_parts.loss import Brier
from own_parts.model import BagOfWords

REVIEWS = Path(__file__).parents[1] / "reviews.tsv"
TWO_STEPS = ["trainer.max_steps=2", "trainer.log_every=1", "callbacks.csv.path=metrics.csv"]


def train(folder, *overrides):
    """The rows of the metrics of a run."""
    command = [sys.executable, "-m", "mlxlab", "train", *overrides, *TWO_STEPS, "tracking=none"]
    done = subprocess.run(
        [*command, f"hydra.run.dir={folder}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("overrides", "metric"),
    [
        (["data=reviews", f"data.source.path={REVIEWS}", "model=bert"], "train/loss"),
        (["model=bag_of_words"], "train/loss"),
        (["trainer/loss=brier", "model/size=nano"], "train/loss"),
        (["callbacks=weight_norm", "model/size=nano"], "weight_norm"),
    ],
    ids=["data", "model", "loss", "callback"],
)
def test_a_part_trains_two_steps(overrides, metric, tmp_path):
    rows = train(tmp_path / "run", *overrides)
    values = [float(row[metric]) for row in rows if row[metric]]
    assert len(values) == 2
    assert all(value > 0 for value in values)


def test_a_line_is_a_row_of_a_text_and_its_label():
    rows = read_reviews(str(REVIEWS))
    assert len(rows) == 60
    assert rows[0] == {"text": "a great and lovely film, part 1", "label": "positive"}


def test_padding_changes_nothing():
    model = BagOfWords(hidden_size=8, max_position_embeddings=16, vocab_size=10)
    tokens, mask = mx.array([[1, 2, 3]]), mx.array([[1, 1, 1]])
    padded, padded_mask = mx.array([[1, 2, 3, 9, 9]]), mx.array([[1, 1, 1, 0, 0]])
    short = model(tokens, mask)
    long = model(padded, padded_mask)
    np.testing.assert_allclose(np.array(long[:, :3]), np.array(short), atol=1e-6)
    np.testing.assert_allclose(
        np.array(model.pool(long, padded_mask)), np.array(model.pool(short, mask)), atol=1e-6
    )


def test_a_certain_prediction_costs_nothing_and_a_certain_mistake_two():
    tokens = mx.zeros((2, 1), mx.int32)
    batch = DeviceBatch(tokens, tokens + 1, mx.array([0, 1]), mx.ones(2), mx.array([0, 1]))
    logits = mx.array([[50.0, -50.0], [50.0, -50.0]])
    terms = Brier(scale=1.0)(lambda tokens, segment_ids: logits, batch)
    np.testing.assert_allclose(np.array(terms.total), [0, 2], atol=1e-6)
