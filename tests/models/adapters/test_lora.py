"""Adapters change nothing when they are inserted, merged or re-ranked, and are all that is trained."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map_with_path

from mlxlab.errors import ConfigError
from mlxlab.models.adapters import arrays
from mlxlab.models.adapters.freeze import adapted_layers, make_contiguous, trainable_names
from mlxlab.models.adapters.lora import merged_node, merged_parameters
from mlxlab.models.build import build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.options import split_node

ADAPTER = {"_target_": "mlxlab.models.options.LoRA"}
TRANSFORMER = {"_target_": "mlxlab.models.transformer.Transformer", "hidden_size": 16}
TRANSFORMER |= {"num_layers": 2, "num_heads": 4, "intermediate_size": 24}
TOKENS = mx.array(np.random.default_rng(0).integers(0, 40, (3, 7)).astype(np.int32))


def random_node(rng):
    """A small model of any backbone, and its task."""
    decoder = {"norm_type": ["rms", "layer"], "num_kv_heads": [None, 2]}
    options = {
        "bert.Bert": {"pre_norm": [False, True], "mlp_type": ["gelu", "geglu"]},
        "cnn_hybrid.CnnHybrid": {"fusion": ["attention", "concat"], "kernel_sizes": [[2, 3]]},
        "transformer.Transformer": {**decoder, "tie_embeddings": [True, False]},
    }
    backbone = rng.choice(list(options))
    node = {"_target_": f"mlxlab.models.{backbone}", "num_heads": 4, "intermediate_size": 24}
    node |= {"hidden_size": int(rng.choice([16, 24])), "num_layers": int(rng.integers(1, 3))}
    node |= {"max_position_embeddings": 16}
    node |= {"position_embedding": str(rng.choice(["learned", "rope"])), "dropout": 0.0}
    node |= {key: values[rng.integers(len(values))] for key, values in options[backbone].items()}
    return node, str(rng.choice(["classification", "language_modelling", "regression"]))


def random_adapter(rng):
    targets = [None, ["*"], ["query", "embedding"], ["value", "*.down"]]
    return ADAPTER | {
        "rank": int(rng.integers(1, 5)),
        "alpha": float(rng.uniform(1, 8)),
        "dora": bool(rng.integers(2)),
        "targets": targets[rng.integers(len(targets))],
    }


def build(node, kind="language_modelling", seed=3):
    return build_model(
        node, kind=kind, num_classes=1 if kind == "regression" else 3, vocab_size=40, seed=seed
    ).eval()


def logits(model):
    return np.array(model(TOKENS, mx.ones(TOKENS.shape, dtype=mx.int32)))


def train(model, seed):
    """Random adapters, as after training."""
    rng = np.random.default_rng(seed)

    def moved(path, leaf):
        return leaf + mx.array(rng.normal(0, 0.1, leaf.shape).astype(np.float32))

    model.update(tree_map_with_path(moved, model.trainable_parameters()))


def load(node, weights, kind):
    model = build(node, kind, seed=None)
    assert named_parameters(model).keys() == weights.keys()
    model.load_weights(list(weights.items()))
    return model


def check_laws(seed):
    rng = np.random.default_rng(seed)
    node, kind = random_node(rng)
    adapter, other = random_adapter(rng), random_adapter(rng)
    options, new = (split_node({"adapter": each})[0].adapter for each in (adapter, other))
    plain, adapted = build(node, kind), build(node | {"adapter": adapter}, kind)
    np.testing.assert_array_equal(logits(plain), logits(adapted))
    layers = adapted_layers(named_parameters(adapted))
    inserted = arrays.insert(named_parameters(plain), layers, options, 3)
    assert inserted.keys() == named_parameters(adapted).keys()
    for name, leaf in named_parameters(adapted).items():
        assert mx.array_equal(leaf, inserted[name])
    train(adapted, seed)
    trained, weights = logits(adapted), named_parameters(adapted)
    assert np.abs(trained - logits(plain)).max() > 1e-4
    merged = load(node, arrays.merge(weights, options), kind)
    np.testing.assert_allclose(logits(merged), trained, atol=1e-5, rtol=1e-5)
    reranked = arrays.rerank(weights, options, new, 5)
    again = load(node | {"adapter": other | {"targets": layers}}, reranked, kind)
    np.testing.assert_allclose(logits(again), trained, atol=1e-5, rtol=1e-5)
    assert named_parameters(again)[f"{layers[0]}.lora_a"].shape[0] == new.rank


@pytest.mark.parametrize("seed", range(12))
def test_insertion_merge_and_rerank_preserve_logits(seed):
    check_laws(seed)


@pytest.mark.fault_injection
def test_insertion_merge_and_rerank_preserve_logits_of_hundreds_of_models():
    for seed in range(100, 400):
        check_laws(seed)


def test_only_adapters_and_chosen_weights_are_trained():
    chosen = {"targets": ["attention.query"], "train": ["norm", "layers.0.*_norm"]}
    model = build(TRANSFORMER | {"adapter": ADAPTER | chosen})
    layers = [f"backbone.layers.{index}.attention.query" for index in range(2)]
    adapters = {f"{layer}.lora_{half}" for layer in layers for half in "ab"}
    norms = ("norm", "layers.0.attention_norm", "layers.0.feed_forward_norm")
    expected = adapters | {f"backbone.{norm}.weight" for norm in norms}
    assert set(trainable_names(model)) == expected


def test_a_tied_embedding_is_stored_once_and_read_with_its_adapter():
    model = build(TRANSFORMER | {"adapter": ADAPTER | {"targets": ["embedding"]}})
    names = [name for name in named_parameters(model) if "embedding" in name]
    assert names == [f"backbone.embedding.{name}" for name in ("base.weight", "lora_a", "lora_b")]
    model.backbone.embedding.lora_b += 0.5
    states = model.backbone(TOKENS, mx.ones(TOKENS.shape, dtype=mx.int32))
    np.testing.assert_allclose(
        logits(model), np.array(states @ model.backbone.embedding.weight.T), atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"adapter": ADAPTER | {"targets": ["attention.qeury"]}},
            "attention.qeury matches nothing",
        ),
        (
            {"adapter": ADAPTER | {"targets": ["q_proj", "down", "*.v_proj"]}},
            r"adapter.targets: q_proj, \*.v_proj matches nothing; expected .* backbone\.\S+$",
        ),
        ({"adapter": ADAPTER | {"train": ["nrm"]}}, "adapter.train: nrm matches nothing"),
        ({"freeze": ["*e" * 30 + "x"]}, "matches nothing"),  # Hours in a backtracking engine.
        ({"freeze": ["embeding"]}, "model.freeze: embeding matches nothing"),
        ({"freeze": ["*"]}, "model.freeze: nothing is left to train"),
    ],
)
def test_a_pattern_that_selects_nothing_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(TRANSFORMER | options)


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        ("layers.0.*", []),
        ("layers.0.attention.query", []),
        ("*", []),
        ("layers.0.attention.query.lora_b", ["lora_b"]),
        ("layers.0.*.query.lora*", ["lora_a", "lora_b"]),
    ],
)
def test_adapters_of_frozen_layers_are_trained_unless_the_pattern_names_adapters(pattern, frozen):
    trained = set(trainable_names(build(TRANSFORMER | {"adapter": ADAPTER, "freeze": [pattern]})))
    layer = "backbone.layers.0.attention.query"
    assert [name for name in ("lora_a", "lora_b") if f"{layer}.{name}" not in trained] == frozen
    assert f"{layer}.base.weight" not in trained


def test_frozen_weights_lie_in_memory_as_a_checkpoint_gives_them():
    model = build(TRANSFORMER | {"adapter": ADAPTER})
    layer = model.backbone.layers[0].attention.query.base
    layer.weight = mx.array(np.ones((16, 16), np.float32)).T
    make_contiguous(model)
    assert np.array(layer.weight, copy=False).flags["C_CONTIGUOUS"]


def test_a_quantised_weight_takes_up_its_adapter_in_full_precision_only():
    quantization = {"_target_": "mlxlab.models.options.Quantization", "bits": 4, "group_size": 32}
    node = TRANSFORMER | {"hidden_size": 32, "adapter": ADAPTER, "quantization": quantization}
    model = build(node)
    train(model, 0)
    with pytest.raises(ConfigError, match="a quantised weight cannot take up its adapter"):
        arrays.merge(named_parameters(model), split_node(node)[0].adapter)
    merged = load(merged_node(node), merged_parameters(model), "language_modelling")
    assert all(leaf.dtype == mx.float32 for leaf in named_parameters(merged).values())
    np.testing.assert_allclose(logits(merged), logits(model), atol=1e-5)
