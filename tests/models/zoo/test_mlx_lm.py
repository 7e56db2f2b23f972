"""Architectures of mlx-lm as backbones."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.inference.generate import GenerationConfig, generate
from mlxlab.models.build import architecture_of, build_model
from mlxlab.models.layers import named_parameters
from support.zoo import CONFIGS, V

pytest.importorskip("mlx_lm", reason="needs the extra zoo")

TARGET = "mlxlab.models.zoo.mlx_lm.MlxLm"
NAMES = ("llama", "llama-untied", "mistral", "mixtral", "mamba")


def new(name, kind="language_modelling", **node):
    config = {"_target_": TARGET, "config": CONFIGS[name], **node}
    model = build_model(config, kind=kind, vocab_size=V, num_classes=3, seed=0)
    mx.eval(model.parameters())
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(
        ["a b c d e f g h i j k l m n o p q r s t u v w x y z"] * 4, V, min_frequency=1
    )


def rows(count=3, length=9):
    tokens = np.random.default_rng(0).integers(0, V, (count, length)).astype(np.int32)
    return mx.array(tokens), mx.ones((count, length), dtype=mx.bool_)


@pytest.mark.parametrize("kind", ["language_modelling", "classification"])
@pytest.mark.parametrize("name", NAMES)
def test_padding_on_the_right_changes_nothing(name, kind):
    model, (tokens, real) = new(name, kind), rows()
    more = mx.full((3, 7), 7, dtype=mx.int32)
    padded = model(
        mx.concatenate([tokens, more], axis=1),
        mx.concatenate([real, mx.zeros((3, 7), mx.bool_)], axis=1),
    )
    if kind == "language_modelling":
        padded = padded[:, :9]
    np.testing.assert_allclose(np.array(model(tokens, real)), np.array(padded), atol=2e-5)


@pytest.mark.parametrize("kind", ["language_modelling", "classification"])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_receives_a_gradient(name, kind):
    model, (tokens, real) = new(name, kind), rows()
    targets = mx.array([0, 1, 2]) if kind == "classification" else tokens
    loss_and_gradients = nn.value_and_grad(
        model, lambda m: nn.losses.cross_entropy(m(tokens, real), targets).mean()
    )
    gradients = tree_flatten(loss_and_gradients(model)[1])
    assert [path for path, g in gradients if not np.abs(np.array(g)).max() > 0] == []


@pytest.mark.parametrize("name", NAMES)
def test_generation_in_batches_is_generation_row_by_row(name, tokenizer):
    model = new(name)
    prompts = [[5, 6, 7, 8, 9], [3], [11, 12]]

    def texts(batch_size):
        request = GenerationConfig(
            max_tokens=6, batch_size=batch_size, context_length=64, temperature=0.0
        )
        parts = ["", "", ""]
        for chunk in generate(model, tokenizer, prompts, request, end_ids=()):
            parts[chunk.row] += chunk.text
        return parts

    assert texts(3) == texts(1)


@pytest.fixture
def published(tmp_path):
    """A folder as mlx-lm and transformers write it, and its model."""
    model = new("llama-untied")
    arrays = {
        name: leaf.astype(mx.bfloat16)
        for name, leaf in named_parameters(model.backbone.model).items()
    }
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llama-untied"]))
    return tmp_path, arrays


@pytest.mark.parametrize("kind", ["language_modelling", "classification"])
def test_a_published_model_gives_shape_and_weights(published, kind):
    folder, arrays = published
    node = {"_target_": TARGET, "pretrained": str(folder)}
    model = build_model(node, kind=kind, vocab_size=40, num_classes=3, seed=1)
    for name, leaf in named_parameters(model.backbone.model).items():
        np.testing.assert_array_equal(
            np.array(leaf), np.array(arrays[name].astype(mx.float32)), err_msg=name
        )
    assert ("lm_head" in model.backbone.model) == (kind == "language_modelling")
    rebuilt = architecture_of(node, 40)
    assert rebuilt.node["config"] == CONFIGS["llama-untied"]
    assert rebuilt.node["pretrained"] is None
    assert rebuilt.vocab_size == V


def load(folder, **options):
    node = {"_target_": TARGET, "pretrained": str(folder)}
    return build_model(node, kind="language_modelling", vocab_size=40, **options)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"auto_map": "mine.py"}, r"code of its own \(auto_map\)"),
        ({"model_file": "mine.py"}, r"code of its own \(model_file\)"),
        ({"rope_scaling": {"_target_": "os.system", "command": "true"}}, "_target_"),
    ],
)
def test_code_of_a_folder_is_refused(published, change, fault):
    folder, _ = published
    (folder / "mine.py").write_text("raise SystemExit('ran')")
    (folder / "config.json").write_text(json.dumps({**CONFIGS["llama-untied"], **change}))
    with pytest.raises(NotAllowedError, match=fault):
        load(folder)


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "vocab_size"])
def test_sizes_that_the_files_cannot_hold_are_refused_before_a_weight_is_drawn(
    published, key, monkeypatch
):
    monkeypatch.setattr("mlxlab.models.build.initialize", lambda *_: pytest.fail("draws weights"))
    folder, _ = published
    (folder / "config.json").write_text(json.dumps({**CONFIGS["llama-untied"], key: 10**9}))
    with pytest.raises((ConfigError, DataError)):
        load(folder, seed=0)


@pytest.mark.parametrize("name", ["base", "cache", "../x", "os", "llama.x", "__init__", ""])
def test_only_an_architecture_of_the_package_is_imported(name):
    node = {"_target_": TARGET, "config": {**CONFIGS["llama"], "model_type": name}}
    with pytest.raises(ConfigError, match="mlx-lm has no architecture"):
        build_model(node, kind="language_modelling", vocab_size=V)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llma"}, "no architecture 'llma'"),
        ({"num_attention_heads": "x"}, "mlx-lm cannot build a llama"),
        ({"hidden_size": None}, "mlx-lm cannot build a llama"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings: expected int"),
    ],
)
def test_a_config_that_fits_nothing_gets_one_line(change, message):
    node = {"_target_": TARGET, "config": {**CONFIGS["llama"], **change}}
    with pytest.raises(ConfigError, match=message) as error:
        build_model(node, kind="language_modelling", vocab_size=V)
    assert "\n" not in str(error.value)
