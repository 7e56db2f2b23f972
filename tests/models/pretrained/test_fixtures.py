"""Parity with transformers: logits of tiny random models, see make_fixtures.py."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.models.build import architecture_of, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.pretrained.load import target_of

FIXTURES = sorted((Path(__file__).parents[2] / "data" / "pretrained").glob("*.npz"))


@pytest.fixture(params=FIXTURES, ids=lambda path: path.stem)
def fixture(request, tmp_path):
    """(arrays of the fixture, folder of the model in two shards)."""
    arrays = dict(np.load(request.param).items())
    weights = {
        name.removeprefix("weight/"): a for name, a in arrays.items() if name.startswith("weight/")
    }
    names = list(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        mx.save_safetensors(str(tmp_path / file), {name: mx.array(weights[name]) for name in part})
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(str(arrays["config"]))
    return arrays, tmp_path


def load(folder, kind="language_modelling"):
    node = {"_target_": target_of(folder), "dropout": 0.0, "pretrained": str(folder)}
    return node, build_model(node, kind=kind, num_classes=2, vocab_size=24, seed=0).eval()


def test_the_logits_are_those_of_transformers(fixture):
    arrays, folder = fixture
    rows, mask = (mx.array(arrays[name].astype(np.int32)) for name in ("rows", "mask"))
    real = arrays["mask"] > 0
    _, model = load(folder)
    expected = arrays["logits"][real]
    atol = 1e-5 * np.abs(expected).max()
    for segment_ids in (mask, mask > 0):
        np.testing.assert_allclose(
            np.array(model(rows, segment_ids))[real], expected, rtol=0, atol=atol
        )


@pytest.mark.slow
def test_compiled_logits_are_those_of_transformers(fixture):
    arrays, folder = fixture
    rows, mask = (mx.array(arrays[name].astype(np.int32)) for name in ("rows", "mask"))
    real = arrays["mask"] > 0
    compiled = np.array(mx.compile(load(folder)[1])(rows, mask))[real]
    expected = arrays["logits"][real]
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(compiled, expected, rtol=0, atol=atol)


def test_its_saved_architecture_is_the_same_without_its_folder(fixture):
    _, folder = fixture
    node, model = load(folder, "classification")
    architecture, vocab_size = architecture_of(node, 24)
    for file in folder.iterdir():
        file.unlink()
    rebuilt = build_model(architecture, kind="classification", num_classes=2, vocab_size=vocab_size)
    shapes, expected = (
        {path: a.shape for path, a in named_parameters(m).items()} for m in (rebuilt, model)
    )
    assert shapes == expected
    rebuilt.load_weights(list(named_parameters(model).items()))
    tokens = mx.array([[5, 9, 3, 7]])
    assert mx.array_equal(rebuilt.eval()(tokens, tokens > 0), model(tokens, tokens > 0))
