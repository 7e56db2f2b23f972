"""What must hold of the parts, and a run of all of them."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlxlab.errors import DataError
from mlxlab.training.device_batch import DeviceBatch

from motifs.backbone import Scanner
from motifs.dataset import Motifs
from motifs.loss import GeneralisedCrossEntropy

PROJECT = Path(__file__).resolve().parents[1]


def run(*command, folder):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def source(tmp_path):
    (tmp_path / "sequences.fasta").write_text(run(str(PROJECT / "make_sequences.py"), "600", folder=tmp_path))
    return tmp_path / "sequences.fasta"


def test_every_fifth_sequence_validates(source):
    data = Motifs(str(source), seq_len=64, batch_size=32, seed=0)
    assert data.task.labels == ("bound", "unbound")
    assert np.concatenate([batch.example_ids for batch in data.valid]).tolist() == list(range(4, 600, 5))


@pytest.mark.parametrize(
    ("text", "message"),
    [(">s1\nACGT\n", ":1: expected `>name label`"), ("ACGT\n", ":1: expected a header"), (">s1 a\nACXT\n", "got 'X'")],
)
def test_a_malformed_file_is_reported_with_its_line(text, message, tmp_path):
    (tmp_path / "bad.fasta").write_text(text)
    with pytest.raises(DataError, match=message):
        Motifs(str(tmp_path / "bad.fasta"), seq_len=8, batch_size=2, seed=0)


def test_padding_changes_nothing():
    model = Scanner(hidden_size=8, motif_length=4, max_position_embeddings=16, vocab_size=10)
    tokens, mask = mx.array([[1, 2, 3]]), mx.array([[1, 1, 1]])
    padded, padded_mask = mx.array([[1, 2, 3, 9, 9]]), mx.array([[1, 1, 1, 0, 0]])
    short, long = model(tokens, mask), model(padded, padded_mask)
    np.testing.assert_allclose(np.array(long[:, :3]), np.array(short), atol=1e-6)
    np.testing.assert_allclose(np.array(model.pool(long, padded_mask)), np.array(model.pool(short, mask)), atol=1e-6)


@pytest.mark.parametrize(("q", "expected"), [(1e-4, -np.log(0.25)), (1.0, 0.75)])
def test_the_loss_lies_between_cross_entropy_and_absolute_error(q, expected):
    tokens = mx.zeros((1, 1), mx.int32)
    batch = DeviceBatch(tokens, tokens + 1, mx.array([0]), mx.ones(1), mx.array([0]))
    terms = GeneralisedCrossEntropy(q)(lambda tokens, segment_ids: mx.log(mx.array([[0.25, 0.75]])), batch)
    np.testing.assert_allclose(np.array(terms.total), [expected], rtol=1e-3)


def test_the_experiment_finds_the_site_and_stops_at_the_target(source, tmp_path):
    args = ["data.source=sequences.fasta", "tracking=none", "callbacks.csv.path=metrics.csv", "hydra.run.dir=run"]
    run("-m", "mlxlab", "train", "experiment=motifs", "callbacks.stop_at_target.target=0.9", *args, folder=tmp_path)
    heading, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    last = dict(zip(heading.split(","), rows[-1].split(","), strict=True))
    assert float(last["valid/accuracy"]) >= 0.9
    assert float(last["motifs/target_step"]) == float(last["step"]) < 600 * 4 / 5 / 32 * 30
