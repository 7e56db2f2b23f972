"""ModernBERT: variants of it against transformers, where that is installed, and what is refused."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import ConfigError, DataError
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.pretrained.family import BERT
from mlxlab.models.pretrained.load import read_shape

FIXTURE = Path(__file__).parents[2] / "data" / "pretrained" / "modernbert.npz"
SIZES = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
TOKENS = SIZES | {"intermediate_size": 24, "pad_token_id": 0, "cls_token_id": 1}
TOKENS |= {"bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2}
BIASED = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True)


def write(folder, arrays, config):
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def saved():
    """(config.json, arrays) of the fixture."""
    arrays = dict(np.load(FIXTURE).items())
    weights = {
        name.removeprefix("weight/"): mx.array(a)
        for name, a in arrays.items()
        if name.startswith("weight/")
    }
    return json.loads(str(arrays["config"])), weights


@pytest.mark.parametrize(
    "options",
    [
        {"global_attn_every_n_layers": 3, "local_attention": 2},
        {"global_attn_every_n_layers": 1, "hidden_activation": "silu", **BIASED},
        {
            "layer_types": ["full_attention", *["sliding_attention"] * 3],
            "local_attention": 5,
            "local_rope_theta": 50.0,
        },
    ],
    ids=["every third layer is global", "biases and silu", "one global layer"],
)
def test_states_and_logits_are_those_of_transformers(tmp_path, options):
    hf, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    published = hf.ModernBertForMaskedLM(hf.ModernBertConfig(**TOKENS, **options)).eval()
    with torch.no_grad():
        for parameter in published.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    published.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(3, 24, (3, 40))
    mask = (np.arange(40) < np.array([[40], [17], [3]])).astype(np.int64)
    tokens[mask == 0] = 0
    model = build_pretrained_model(tmp_path, 24)
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
        states = published.model(**inputs).last_hidden_state.numpy()
        logits = published(**inputs).logits.numpy()
    rows, segment_ids = mx.array(tokens), mx.array(mask)
    for module, values in ((model.backbone, states), (model, logits)):
        actual = np.array(module(rows, segment_ids))[mask > 0]
        reference = values[mask > 0]
        atol = 1e-5 * np.abs(reference).max()
        np.testing.assert_allclose(actual, reference, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hidden_activation": "relu"}, "hidden_act is relu, only gelu or silu is supported"),
        ({"classifier_activation": "silu"}, "classifier_activation is silu"),
        ({"classifier_pooling": "max"}, "classifier_pooling is max, only cls or mean"),
        ({"norm_bias": True}, "has some biases .*norm_bias=true.*only all or none"),
        ({"decoder_bias": False}, "decoder_bias is false, only true"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is false"),
        ({"layer_types": [*["full_attention"] * 2, "sliding_attention"]}, "in every n-th layer"),
        ({"layer_types": ["full_attention"]}, "layer_types: expected 3 layers, got 1"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters has rope_theta"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "of type yarn"),
        ({"rope_parameters": {"full_attention": 3}}, "rope_parameters.full_attention is 3"),
        ({"rope_parameters": None, "rope_scaling": {"rope_type": "linear"}}, "of type linear"),
    ],
)
def test_a_variant_that_the_encoder_lacks_is_refused_by_its_key(tmp_path, saved, change, fault):
    config, _ = saved
    with pytest.raises(ConfigError, match=fault):
        read_shape(write(tmp_path, {}, config | change), {"_target_": BERT}, 24)


@pytest.mark.parametrize(
    ("name", "array", "fault"),
    [
        ("layers.1.attn.Wqkv.weight", None, r"layers\.1\.attention\.query\.weight is missing"),
        ("final_norm.weight", None, r"last_norm\.weight is missing$"),
        ("layers.0.attn_norm.weight", mx.ones(16), r"0\.attention_norm\.weight is not a weight"),
        ("layers.2.mlp.Wi.weight", mx.ones((40, 16)), r"gate\.weight has shape \(20, 16\)"),
        ("layers.2.mlp.Wi.weight", mx.ones((41, 16)), r"feed_forward\.gate\.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(tmp_path, saved, name, array, fault):
    config, arrays = saved
    changed = {key: value for key, value in arrays.items() if key != f"model.{name}"}
    if array is not None:
        changed[f"model.{name}"] = array
    with pytest.raises(DataError, match=fault) as error:
        build_pretrained_model(write(tmp_path, changed, config), 24)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("published", "pooling"), [("cls", "first"), ("mean", "mean")])
def test_a_classifier_pools_as_published_unless_told_otherwise(tmp_path, saved, published, pooling):
    config, arrays = saved
    folder = write(tmp_path, arrays, config | {"classifier_pooling": published})
    node = {"_target_": BERT, "position_embedding": "learned"}
    assert read_shape(folder, node, 24)["pooling"] == pooling
    assert read_shape(folder, {**node, "pooling": "dense"}, 24)["pooling"] == pooling
    assert "pooling" not in read_shape(folder, {**node, "pooling": "mean"}, 24)
