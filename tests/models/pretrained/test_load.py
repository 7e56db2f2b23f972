"""Pretrained weights: names of Hugging Face, shapes and faults, with small folders written here."""

import json
import math
import warnings

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxlab.errors import (
    ConfigError,
    DataError,
    InputNotFoundError,
    NotAllowedError,
    ServiceUnavailableError,
)
from mlxlab.models.adapters.freeze import trainable_names
from mlxlab.models.bert import Bert
from mlxlab.models.build import architecture_of, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.pretrained import bert, llama
from mlxlab.models.pretrained.load import read_shape, resolve
from mlxlab.models.pretrained.weights import load_weights
from mlxlab.models.transformer import Transformer

TARGETS = {
    "bert": "mlxlab.models.bert.Bert",
    "cnn_hybrid": "mlxlab.models.cnn_hybrid.CnnHybrid",
    "transformer": "mlxlab.models.transformer.Transformer",
}
SHAPE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48}
SHAPE |= {"vocab_size": 50}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "vocab_size": 50}
BERT_CONFIG = SIZES | {"model_type": "bert", "max_position_embeddings": 64}
LLAMA_CONFIG = SIZES | {"model_type": "llama", "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
LLAMA_CONFIG |= {"rope_theta": 5e5, "tie_word_embeddings": False}
CONFIGS = {"bert": BERT_CONFIG, "transformer": LLAMA_CONFIG}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def randomised(model, scale=0.2):
    """No two weights alike, norms and biases included: a swap of two would show."""
    mx.random.seed(1)
    model.update(tree_map(lambda w: w + scale * mx.random.normal(w.shape), model.parameters()))
    mx.eval(model.parameters())
    return model.eval()


def bert_arrays(model, prefix="", gamma=False):
    """The arrays by the names of BERT, in early files of which norms have others."""
    arrays = {}
    for path, array in named_parameters(model).items():
        name = bert.FAMILY.published_name(path).removeprefix("bert.")
        if gamma:
            name = name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
        arrays[prefix + name] = array
    return arrays


def llama_arrays(model):
    parameters = named_parameters(model).items()
    return {llama.LLAMA.published_name(path): array for path, array in parameters}


def write(folder, arrays, config, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / name), arrays)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def load_bert(folder, vocab_size=50, **options):
    """The encoder in the folder's shape with its weights."""
    shape = read_shape(resolve(folder), {"_target_": TARGETS["bert"]} | options, vocab_size)
    encoder = Bert(**options | shape)
    load_weights(encoder, resolve(folder))
    return encoder.eval()


def load_model(
    family, folder, kind="language_modelling", load_pretrained=True, seed=None, **options
):
    node = {"_target_": TARGETS[family], "pretrained": str(folder), "dropout": 0.0} | options
    return build_model(
        node, kind=kind, num_classes=2, vocab_size=50, load_pretrained=load_pretrained, seed=seed
    ).eval()


def tokens_and_segments():
    tokens = np.random.default_rng(0).integers(0, 50, (3, 9)).astype(np.int32)
    return mx.array(tokens), mx.ones((3, 9), dtype=mx.int32)


@pytest.fixture
def encoder():
    return randomised(Bert(**SHAPE, max_position_embeddings=64))


@pytest.fixture
def decoder():
    return randomised(Transformer(**SHAPE, num_kv_heads=2, rope_theta=5e5, tie_embeddings=False))


def assert_same_weights(a, b):
    np.testing.assert_array_equal(
        np.array(a(*tokens_and_segments())), np.array(b(*tokens_and_segments()))
    )


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("gamma", [False, True])
def test_bert_weights_load_by_both_sets_of_names(tmp_path, encoder, prefix, gamma):
    folder = write(tmp_path, bert_arrays(encoder, prefix, gamma), BERT_CONFIG)
    loaded = load_bert(folder, vocab_size=40, dropout=0.1, hidden_size=8)
    assert_same_weights(loaded, encoder)
    np.testing.assert_array_equal(np.array(loaded.pooler.weight), np.array(encoder.pooler.weight))


def test_only_shards_of_the_index_within_the_folder_are_read(tmp_path, encoder):
    unread = {"task_specific_params": {"max_length": 10**30, "penalty": math.inf}}
    arrays = bert_arrays(encoder)
    write(tmp_path, arrays, BERT_CONFIG | unread, "a.safetensors")
    other = {"of.another.layout": mx.ones((2,))}
    mx.save_safetensors(str(tmp_path / "consolidated.safetensors"), other)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(arrays, "a.safetensors")} | unread))
    assert_same_weights(load_bert(str(tmp_path)), encoder)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(InputNotFoundError, match=r"not found: a\.safetensors"):
        load_bert(str(tmp_path))
    index.write_text(json.dumps({"weight_map": {"x": "../b.safetensors"}}))
    with pytest.raises(NotAllowedError, match="outside its folder"):
        load_bert(str(tmp_path))


@pytest.mark.parametrize("family", ["bert", "cnn_hybrid"])
def test_a_missing_head_starts_at_random_with_a_warning_and_a_classifier_needs_none(
    tmp_path, encoder, family
):
    folder = write(tmp_path, bert_arrays(encoder), BERT_CONFIG)
    with pytest.warns(UserWarning, match=r"no bias, norm\.bias, .* initialized at random"):
        load_model(family, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(family, folder, kind="classification")
    backbone = model.backbone.encoder if family == "cnn_hybrid" else model.backbone
    assert_same_weights(backbone, encoder)


@pytest.mark.parametrize("family", ["bert", "cnn_hybrid"])
def test_with_an_adapter_what_is_not_pretrained_trains(tmp_path, encoder, family):
    folder = write(tmp_path, bert_arrays(encoder), BERT_CONFIG)
    adapter = {"_target_": "mlxlab.models.options.LoRA"}
    model = load_model(family, folder, kind="classification", adapter=adapter)
    names = trainable_names(model)
    pretrained = {"bert": "backbone", "cnn_hybrid": "backbone.encoder"}[family]
    new = {path for path in named_parameters(model) if not path.startswith(pretrained)}
    assert {path for path in names if ".lora_" not in path} == new
    node = {"_target_": TARGETS[family], "pretrained": str(folder), "adapter": adapter}
    saved = architecture_of(node, 50)
    again = build_model(saved.node, kind="classification", num_classes=2, vocab_size=50)
    assert trainable_names(again) == names, "a resumed run trains the same weights"


@pytest.mark.parametrize(
    ("name", "number"), [("pooler.dense.bias", math.nan), ("cls.predictions.bias", -math.inf)]
)
def test_a_weight_that_is_not_finite_is_refused_by_name(tmp_path, encoder, name, number):
    arrays = bert_arrays(encoder) | {"cls.predictions.bias": mx.zeros((50,))}
    arrays[name] = mx.concatenate([arrays[name][:-1], mx.array([number])])
    with pytest.raises(DataError, match=r"(pooler|head)\.bias holds NaN or infinity"):
        load_bert(write(tmp_path, arrays, BERT_CONFIG))


@pytest.mark.parametrize(("option", "pooling"), [({}, "first"), ({"pooling": "mean"}, "mean")])
def test_a_model_without_pooler_pools_without_one(tmp_path, encoder, option, pooling):
    arrays = bert_arrays(encoder)
    del arrays["pooler.dense.weight"], arrays["pooler.dense.bias"]
    folder = write(tmp_path, arrays, BERT_CONFIG)
    model = load_model("bert", folder, kind="classification", **option)
    tokens, ones = tokens_and_segments()
    segment_ids = mx.where(mx.arange(9) < 5, ones, 0)
    states = model.backbone(tokens, segment_ids)
    expected = states[:, 0] if pooling == "first" else states[:, :5].mean(axis=1)
    np.testing.assert_allclose(model.backbone.pool(states, segment_ids), expected, atol=1e-6)
    assert "backbone.pooler.weight" not in named_parameters(model)


@pytest.mark.parametrize(
    ("name", "array", "fault"),
    [
        ("pooler.dense.weight", None, r"pooler\.weight is missing$"),
        ("encoder.layer.1.output.LayerNorm.bias", None, r"1\.feed_forward_norm\.bias is missing$"),
        ("pooler.dense.bias", mx.zeros(31), r"pooler\.bias has shape \(31,\), expected \(32,\)"),
    ],
)
def test_a_missing_or_misshapen_weight_fails_by_name(tmp_path, encoder, name, array, fault):
    arrays = bert_arrays(encoder)
    del arrays[name]
    if array is not None:
        arrays[name] = array
    with pytest.raises(DataError, match=fault):
        load_bert(write(tmp_path, arrays, BERT_CONFIG))


def test_unknown_weights_are_reported_outside_the_layers_and_refused_within(tmp_path, encoder):
    more = bert_arrays(encoder) | {"classifier.weight": mx.ones((2, 32))}
    with pytest.warns(UserWarning, match=r"no such weights: classifier\.weight"):
        assert_same_weights(load_bert(write(tmp_path, more, BERT_CONFIG)), encoder)
    name = "encoder.layer.0.attention.self.distance.weight"
    other = bert_arrays(encoder) | {name: mx.ones((2, 32))}
    with pytest.raises(DataError, match=r"layers\.0\.attention.*is not a weight of this"):
        load_bert(write(tmp_path, other, BERT_CONFIG))


@pytest.mark.parametrize(
    ("family", "change", "option", "fault"),
    [
        ("bert", {"hidden_act": "gelu_new"}, {}, "hidden_act is gelu_new, only gelu or relu"),
        ("bert", {"position_embedding_type": "relative_key"}, {}, "position_embedding_type is"),
        ("bert", {"model_type": "electra"}, {}, "of type electra; model=bert loads bert, roberta"),
        ("bert", {"vocab_size": 49}, {}, "has 49 tokens, fewer than"),
        ("bert", {}, {"position_embedding": "rope"}, "model.position_embedding=learned"),
        ("bert", {}, {"mlp_type": "swiglu"}, "no gated model.mlp_type"),
        ("transformer", {"mlp_bias": True}, {}, "mlp_bias is True"),
        ("transformer", {"rope_parameters": {"rope_type": "yarn"}}, {}, "of type yarn"),
        ("transformer", {"rope_parameters": {"rope_theta": "big"}}, {}, "rope_theta is big"),
        ("transformer", {"rope_scaling": LLAMA3, "hidden_size": 10**9}, {}, "at most 65536"),
        ("transformer", {"model_type": "gemma2"}, {}, "of type gemma2; model=transformer loads"),
        ("transformer", {}, {"position_embedding": "learned"}, "model.position_embedding=rope"),
    ],
)
def test_what_an_architecture_lacks_is_refused(tmp_path, family, change, option, fault):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[family] | change))
    with pytest.raises(ConfigError, match=fault):
        read_shape(tmp_path, {"_target_": TARGETS[family], **option}, 50)


def test_damaged_and_foreign_files_are_one_line(tmp_path, encoder):
    folder = write(tmp_path, bert_arrays(encoder), BERT_CONFIG)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:20], b"", b"\x80\x04" + whole):
        weights.write_bytes(damaged)
        with pytest.raises(DataError):
            load_bert(folder)
    weights.unlink()
    with pytest.raises(InputNotFoundError, match="no safetensors file"):
        load_bert(folder)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(NotAllowedError, match=r"pytorch_model\.bin"):
        load_bert(folder)


@pytest.mark.parametrize(
    ("text", "fault", "words"),
    [
        (None, InputNotFoundError, "config.json not found"),
        ("{", DataError, "not valid JSON"),
        ("[]", DataError, "expected dict"),
        ("{}", DataError, "'hidden_size' is missing"),
        (json.dumps(BERT_CONFIG | {"hidden_size": "32"}), DataError, "hidden_size: expected int"),
        (json.dumps(BERT_CONFIG | {"num_hidden_layers": 10**8}), DataError, "num_hidden_layers"),
        (json.dumps(LLAMA_CONFIG | {"head_dim": 10**9}), DataError, "all heads together: "),
        ('{"auto_map": {"AutoModel": "x.py"}}', NotAllowedError, "run code of its own"),
    ],
)
def test_a_faulty_config_is_one_line(tmp_path, text, fault, words):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(fault, match=words):
        load_bert(str(tmp_path))


@pytest.mark.parametrize(
    ("family", "key", "size"),
    [
        ("bert", "hidden_size", 10**9),
        ("bert", "max_position_embeddings", 10**9),
        ("transformer", "vocab_size", 10**9),
        ("transformer", "head_dim", 10**8),
        ("transformer", "num_hidden_layers", 9),
    ],
)
def test_sizes_that_the_files_cannot_hold_are_refused_before_a_weight_is_drawn(
    tmp_path, encoder, decoder, family, key, size, monkeypatch
):
    monkeypatch.setattr("mlxlab.models.build.initialize", lambda *_: pytest.fail("draws weights"))
    arrays = {"bert": bert_arrays(encoder), "transformer": llama_arrays(decoder)}[family]
    folder = write(tmp_path / "model", arrays, CONFIGS[family] | {key: size})
    with pytest.raises((ConfigError, DataError), match=r"GB of memory|weights do not fit"):
        load_model(family, folder, seed=0)


def test_a_name_is_a_folder_or_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "outputs" / "tuned").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    for name, fault in [
        *((name, "no such folder") for name in ("nowhere", "./a", "a/b/c", "models/tuned")),
        ("outputs/tunned", r"no such folder.*; did you mean outputs/tuned\?"),
        ("rows.jsonl", r"a file, expected a GGUF file"),
    ]:
        with pytest.raises(InputNotFoundError, match=f"={name}: {fault}"):
            resolve(name)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ServiceUnavailableError, match=r"for hub ids: pip install -e '.*\[hub\]'"):
        resolve("owner/name")
