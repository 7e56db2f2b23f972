"""Every run starts from the same bits on every platform: initial weights, dropout masks and batches of a seed."""

import hashlib
import itertools
import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from omegaconf import OmegaConf

from mlxlab.backend.ops.dropout import DropoutMask
from mlxlab.config.hydra.compose import compose, without_hydra
from mlxlab.evaluation.parts.data import build_data
from mlxlab.models.build import build_model
from mlxlab.models.initialization import inverse_normal_cdf, normal

WEIGHTS = {  # SHA-256 of the initial weights at size=nano, seed 0, 1,024 tokens, 2 classes
    ("bert", "classification"): "249796a237534338",
    ("bert", "language_modelling"): "1b44229f27cbdd77",
    ("cnn_hybrid", "classification"): "c51953ccaaf5f94d",
    ("cnn_hybrid", "language_modelling"): "b9d4c4657495c3f0",
    ("transformer", "classification"): "69ab4f87bf1ace60",
    ("transformer", "language_modelling"): "ba2ecf6154b0a54d",
}
BATCHES = {  # ... of the first 100 batches
    "titanic": "2d0470fa7960017a",
    "text, causal": "9cbeaf1d8b87b2c8",
    "text, masked": "fa3aac77cce2994e",
}


def composed(*overrides):
    return OmegaConf.to_container(without_hydra(compose(list(overrides))), resolve=True)


@pytest.mark.parametrize(("family", "kind"), WEIGHTS)
def test_the_initial_weights_of_a_seed_are_the_published_ones(family, kind):
    node = composed(f"model={family}", "model/size=nano")["model"]
    model = build_model(node, kind=kind, num_classes=2, vocab_size=1024, seed=0)
    digest = hashlib.sha256()
    for path, leaf in sorted(tree_flatten(model.parameters())):
        digest.update(path.encode())
        digest.update(np.array(leaf).astype("<f4").tobytes())
    assert digest.hexdigest()[:16] == WEIGHTS[family, kind]


@pytest.mark.parametrize("name", BATCHES)
def test_the_first_hundred_batches_of_a_seed_are_the_published_ones(tmp_path, name):
    args = ["data=titanic"]
    if name != "titanic":
        file = tmp_path / "text.jsonl"
        texts = [f"Line {n} says that {n * n} is a square. " * (1 + n % 5) for n in range(600)]
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        args = ["data=streaming", f"data.source={file}", "data.tokenizer.vocab_size=400"]
        args += ["data.seq_len=32", "data.batch_size=4", "data.valid_fraction=0.1"]
        args += ["model=bert" if "masked" in name else "model=transformer"]
    data = build_data(composed(*args), tmp_path, None, tmp_path)
    digest = hashlib.sha256()
    endless = itertools.chain.from_iterable(itertools.repeat(data.train))
    for batch in itertools.islice(endless, 100):
        for array in batch[:5]:
            digest.update(f"{array.dtype.name} {array.shape}".encode())
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == BATCHES[name]


def test_the_dropout_mask_of_a_seed_is_the_published_one():
    mx.random.seed(0)
    masks = [np.array(DropoutMask.draw((64, 33), 0.1).keep_mask) for _ in range(2)]
    assert hashlib.sha256(np.stack(masks).tobytes()).hexdigest()[:16] == "6d4aa1a12117555c"


def test_a_parameter_depends_on_the_seed_and_on_its_own_path_only():
    first = normal(0, "backbone.a.weight", (300, 300), 0.02)
    np.testing.assert_array_equal(first, normal(0, "backbone.a.weight", (300, 300), 0.02))
    np.testing.assert_array_equal(first[:100], normal(0, "backbone.a.weight", (100, 300), 0.02))
    for seed, path in ((1, "backbone.a.weight"), (0, "backbone.b.weight")):
        other = normal(seed, path, (300, 300), 0.02)
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.02


def test_the_inverse_of_the_normal_distribution_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    u = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 10_001), 10.0 ** -np.linspace(1, 15, 1000)])
    np.testing.assert_allclose(inverse_normal_cdf(u), stats.norm.ppf(u), rtol=1e-13, atol=1e-15)
