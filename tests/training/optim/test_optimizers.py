"""Laws of every optimizer: what is decayed, that it learns, that a resume changes nothing; and of each its own."""

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from benchmarks.config import read_config
from mlx.utils import tree_map

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir
from mlxlab.training.checkpointer import final_state_digest, saved_arrays
from mlxlab.training.optim.optimizers import flatten_arrays, newton_schulz
from support.models import RandomBatches, fit, make_model, make_run, make_trainer

NAMES = ["adamw", "adafactor", "lion", "sgd", "muon"]
RATES = {"sgd": 0.3, "lion": 1e-2, "muon": 5e-2}


def optimizer_of(name: str, **changes: object) -> Any:
    """That of conf/trainer/optimizer/<name>.yaml: (learning_rate=) -> optimizer."""
    return instantiate(read_config(f"trainer/optimizer/{name}") | changes)


def new_optimizer(name: str, **changes: object) -> Any:
    return optimizer_of(name, **changes)(learning_rate=0.1)


def test_every_shipped_optimizer_is_tested():
    assert sorted(NAMES) == sorted(
        file.stem for file in (conf_dir() / "trainer/optimizer").glob("*.yaml")
    )


@pytest.mark.parametrize("name", NAMES)
def test_norms_biases_and_embeddings_are_never_decayed(name):
    layers = [nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Conv1d(4, 4, 3)]
    embedding, norm, *others = [layer.parameters() for layer in layers]
    weights = {"backbone": {"embedding": embedding, "norm": norm}, "layers": others}
    optimizer = new_optimizer(name, weight_decay=0.5)
    optimizer.init(weights)
    after = optimizer.apply_gradients(tree_map(mx.zeros_like, weights), weights)
    before = flatten_arrays(weights)
    moved = {path for path, leaf in flatten_arrays(after).items() if (leaf != before[path]).any()}
    assert moved == {"layers.0.weight", "layers.1.weight"}


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns(name):
    trainer = make_trainer(
        optimizer=optimizer_of(name), learning_rate=RATES.get(name, 1e-2), epochs=40
    )
    run = fit(trainer, make_run(make_model(dropout=0.0), RandomBatches(rows=8)), seed=1)
    losses = [
        metrics["train/loss"] for _, metrics in run.state.history.curve if "train/loss" in metrics
    ]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_ends_in_the_same_state_bit_for_bit(name):
    def train(steps: int, checkpoint: Checkpoint | None = None) -> Any:
        options = {"schedule": partial(_falling), "max_steps": steps, "epochs": None}
        trainer = make_trainer(optimizer=optimizer_of(name), **options)
        return fit(trainer, checkpoint=checkpoint, seed=2).state

    uninterrupted, half = train(8), train(4)
    resumed = train(8, Checkpoint(None, 4, *saved_arrays(half), half.state_dict()))
    assert final_state_digest(resumed) == final_state_digest(uninterrupted)


def _falling(*, peak: float, steps: int | None) -> Any:
    """A schedule that does not know the length of the run."""
    return lambda step: peak / (1.0 + step)


def test_newton_schulz_keeps_singular_vectors_and_brings_values_near_one():
    rng = np.random.default_rng(0)
    for shape in ((6, 6), (4, 9), (12, 5)):
        matrix = rng.normal(size=shape).astype(np.float32)
        u, _, v = np.linalg.svd(matrix, full_matrices=False)
        orthogonal = np.array(newton_schulz(mx.array(matrix), 5))
        values = np.diag(u.T @ orthogonal @ v.T)
        assert 0.5 < values.min() <= values.max() < 1.3
        np.testing.assert_allclose(u @ np.diag(values) @ v, orthogonal, atol=1e-4)


def test_muon_leaves_embeddings_and_the_output_layer_to_adamw():
    weights = {"backbone": {"embedding": {"weight": mx.ones((4, 4))}, "w": mx.ones((4, 4))}}
    weights["head"] = {"out": {"weight": mx.ones((2, 4))}}
    optimizer = new_optimizer("muon")
    optimizer.init(weights)
    states = [flatten_arrays(each.state) for each in optimizer.optimizers]
    moments = [[path[:-2] for path in state if path.endswith(".m")] for state in states]
    assert moments == [["backbone.w"], ["head.out.weight"], ["backbone.embedding.weight"]]


@pytest.mark.parametrize(("saved", "resumed"), [(a, b) for a in NAMES for b in NAMES if a != b])
def test_the_state_of_another_optimizer_is_refused_in_one_line(saved, resumed):
    states = [
        make_trainer(optimizer=optimizer_of(name)).init_state(make_model(), RandomBatches())
        for name in (saved, resumed)
    ]
    with pytest.raises(CorruptCheckpointError, match="optimizer array") as error:
        states[1].load_weights(*saved_arrays(states[0]))
    assert "\n" not in str(error.value)
