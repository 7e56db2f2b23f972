"""Weights carried from one model to another: by name, renamed, merged, converted; whatever is not, is reported."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.transfer import Layout, Rules, transfer
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.models.adapters.arrays import insert
from mlxlab.models.adapters.lora import merged_weight
from mlxlab.models.build import build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.options import LoRA
from mlxlab.models.pretrained import bert, llama
from support.models import assert_same

NODE = {
    "_target_": "mlxlab.models.transformer.Transformer",
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 48,
}
QUERY, EMBEDDING = "backbone.layers.0.attention.query", "backbone.embedding"
ADAPTER = LoRA(rank=2, alpha=3.0)
RULES = Rules(
    merge=merged_weight, old=Layout(scale=1.5, group_size=32), new=Layout(scale=1.5, group_size=32)
)


def arrays(seed=0, **keys):
    return named_parameters(
        build_model(NODE | keys, kind="language_modelling", vocab_size=40, seed=seed)
    )


@pytest.fixture(scope="module")
def old():
    return arrays(seed=1)


@pytest.fixture(scope="module")
def adapted(old):
    inserted = insert(old, [QUERY, EMBEDDING], ADAPTER, seed=3)
    return inserted | {
        f"{layer}.lora_b": inserted[f"{layer}.lora_b"] + 0.1 for layer in (QUERY, EMBEDDING)
    }


def quantized(weights, layer, base=""):
    codes, scales, biases = mx.quantize(weights[f"{layer}.weight"], group_size=32, bits=4)
    rest = {name: array for name, array in weights.items() if name != f"{layer}.weight"}
    path = f"{layer}{base}"
    return rest | {f"{path}.weight": codes, f"{path}.scales": scales, f"{path}.biases": biases}


def counts(result):
    return {outcome: len(names) for outcome, names in result.report.names.items()}


def assert_equal(result, expected):
    assert result.weights.keys() == expected.keys()
    assert_same(result.weights, expected)


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod.", "_orig_mod.model."])
def test_prefixes_of_wrappers_are_no_part_of_a_name(old, prefix):
    result = transfer({prefix + name: array for name, array in old.items()}, arrays(), RULES)
    assert_equal(result, old)
    assert counts(result) == {"renamed" if prefix else "matched": len(old)}
    assert result.sources[f"{QUERY}.weight"] == f"{prefix}{QUERY}.weight"


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_published_names_are_read_by_their_table(old, prefix):
    published = {
        prefix + llama.LLAMA.published_name(path): array.astype(mx.float16)
        for path, array in old.items()
    }
    result = transfer(
        published, arrays(), replace(RULES, tables=(bert.FAMILY.table(), llama.LLAMA.table()))
    )
    assert counts(result) == {"renamed": len(old)}
    assert {array.dtype for array in result.weights.values()} == {mx.float32}
    np.testing.assert_array_equal(
        result.weights[f"{QUERY}.weight"], old[f"{QUERY}.weight"].astype(mx.float16)
    )


def test_an_adapted_checkpoint_is_merged_into_a_plain_model_also_its_untied_head(adapted):
    expected = arrays(tie_embeddings=False)
    result = transfer(adapted, expected, RULES)
    assert counts(result) == {"merged": 3, "matched": len(expected) - 3}
    weight = merged_weight(
        *(adapted[f"{EMBEDDING}.{part}"] for part in ("base.weight", "lora_a", "lora_b")), 1.5
    )
    np.testing.assert_array_equal(result.weights[f"{EMBEDDING}.weight"], weight)
    np.testing.assert_array_equal(result.weights["head.out.weight"], weight)


def test_float_weights_are_quantised_and_codes_dequantised(old):
    codes = quantized(old, QUERY)
    result = transfer(old, quantized(arrays(), QUERY), RULES)
    assert counts(result) == {"matched": len(old) - 1, "converted": 3}
    assert_equal(result, codes)
    back = transfer(codes, arrays(), RULES)
    assert counts(back) == {"matched": len(old) - 1, "converted": 1}
    dense = mx.dequantize(
        *(codes[f"{QUERY}.{part}"] for part in ("weight", "scales", "biases")),
        group_size=32,
        bits=4,
    )
    np.testing.assert_array_equal(back.weights[f"{QUERY}.weight"], dense)


def test_faults_are_refused_with_counts_and_names_unless_the_policy_allows_them(old):
    damaged = dict(old) | {
        "backbone.extra.weight": mx.zeros((3,)),
        f"{QUERY}.weight": mx.zeros((32, 8)),
    }
    del damaged["backbone.norm.weight"]
    report = transfer(damaged, arrays(), RULES).report
    assert report.count("missing", "unexpected", "wrong shape") == 3
    with pytest.raises(NotAllowedError) as error:
        report.require(1.0, "run/x")
    accepted = int(report.match * 100) / 100
    damage = ["missing (backbone.norm.weight)", "unexpected (backbone.extra.weight)"]
    for fact in (*damage, f"wrong shape ({QUERY}.weight: ", f"min_match={accepted} accepts it"):
        assert fact in str(error.value)
    report.require(accepted, "run/x")


def test_an_empty_match_is_always_an_error():
    report = transfer({"somebody.elses": mx.zeros((3,))}, arrays(), RULES).report
    with pytest.raises(
        DataError, match=r"^run/x: no array fits the model: \d+ missing .* 1 unexpected"
    ):
        report.require(0.0, "run/x")


def test_arrays_that_do_not_agree_with_each_other_have_a_wrong_shape(adapted):
    hostile = adapted | {f"{QUERY}.lora_a": mx.zeros((7, 5))}
    assert counts(transfer(hostile, arrays(), RULES))["wrong shape"] == 1
