"""How published weights are quantised: each layer in its own way, and what a crafted config.json may say."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import DataError
from mlxlab.evaluation.parts.initial_weights import find_weights
from mlxlab.models.build import build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.pretrained import llama
from support.growth import SIZES, TARGETS

NODE = {"_target_": TARGETS["transformer"], **SIZES, "hidden_size": 64, "intermediate_size": 96}
NODE |= {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}
NODE |= {"tie_embeddings": False}
EXCEPTIONS = {
    "model.layers.0.self_attn.q_proj": {"group_size": 32, "bits": 8},
    "model.layers.1.mlp.down_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "model.layers.1.mlp.up_proj": True,
    "lm_head": False,
}
DEFAULT = {"group_size": 64, "bits": 4}


def new_model(seed):
    return build_model(NODE, kind="language_modelling", num_classes=24, vocab_size=24, seed=seed)


def publish(folder, quantization):
    """A folder as mlx-lm writes it, and the weights that it holds, by our paths."""
    arrays, weights = {}, {}
    for path, array in named_parameters(new_model(1)).items():
        name = llama.LLAMA.published_name(path).removesuffix(".weight")
        options = EXCEPTIONS.get(name, True)
        options = DEFAULT if options is True else options
        if array.ndim < 2 or not options or array.shape[1] % options["group_size"]:
            arrays[f"{name}.weight"] = weights[path] = array
            continue
        parts = mx.quantize(array, **options)
        arrays |= {
            f"{name}.{part}": codes
            for part, codes in zip(("weight", "scales", "biases"), parts, strict=False)
        }
        weights[path] = mx.dequantize(*parts, **options).astype(mx.float32)
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization": quantization})
    )
    return weights


def test_each_layer_is_read_as_it_was_quantised(tmp_path):
    expected = publish(tmp_path / "published", DEFAULT | EXCEPTIONS)
    model = new_model(2)
    initial = find_weights(str(tmp_path / "published")).load_into(model, NODE, min_match=1.0)
    assert initial.report.as_json().keys() == {"renamed", "converted"}
    for path, array in named_parameters(model).items():
        np.testing.assert_array_equal(np.array(array), np.array(expected[path]), err_msg=path)


@pytest.mark.parametrize(
    ("quantization", "fault"),
    [
        (DEFAULT | {"bits": 10**18}, "bits: expected one of 2, 3, 4, 5, 6, 8, got 1"),
        (DEFAULT | {"bits": True}, "bits: expected one of 2, 3, 4, 5, 6, 8, got True"),
        (DEFAULT | {"group_size": [64]}, r"group_size: expected one of 16, 32, 64, 128, got \[64"),
        (DEFAULT | {"mode": "exec"}, "mode: expected one of .* got 'exec'"),
        (DEFAULT | {"lm_head": {"bits": 7}}, "lm_head.bits: expected one of .* got 7"),
        ("4 bits", "expected dict, got '4 bits'"),
    ],
)
def test_a_crafted_quantization_is_one_line(tmp_path, quantization, fault):
    publish(tmp_path / "published", quantization)
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/published/config.json: quantization: {fault}"
    ) as raised:
        find_weights(str(tmp_path / "published")).read()
    assert "\n" not in str(raised.value)
