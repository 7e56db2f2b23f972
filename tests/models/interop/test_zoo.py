"""Models of `model=mlx_lm` as exported folders, in mlx-lm: equal logits and text."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.data.batch import Task
from mlxlab.errors import ConfigError
from mlxlab.models.interop.gguf import export_gguf
from mlxlab.models.interop.hugging_face import export_hugging_face
from mlxlab.models.interop.model_card import Origin
from mlxlab.models.interop.peft import export_peft

mlx_lm = pytest.importorskip("mlx_lm", reason="needs the extra zoo")

TARGET = "mlxlab.models.zoo.mlx_lm.MlxLm"
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
}
SIZES |= {
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 300,
    "torch_dtype": "bfloat16",
}
CONFIGS = {
    "llama": {"model_type": "llama", **SIZES},
    "qwen3": {
        "model_type": "qwen3",
        **SIZES,
        "head_dim": 8,
        "rope_theta": 1e4,
        "max_position_embeddings": 64,
    }
    | {"tie_word_embeddings": False},
    "mamba": {
        "model_type": "mamba",
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 8,
    }
    | {
        "num_hidden_layers": 2,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
    },
    "glm4_moe": {
        "model_type": "glm4_moe",
        **SIZES,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "rope_theta": 1e4,
    }
    | {
        "moe_intermediate_size": 16,
        "norm_topk_prob": True,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 1,
    }
    | {
        "n_routed_experts": 4,
        "routed_scaling_factor": 1.0,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
    }
    | {
        "use_qk_norm": True,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "partial_rotary_factor": 0.5,
    }
    | {"rope_scaling": None},
}
LORA = {"_target_": "mlxlab.models.options.LoRA", "rank": 2, "alpha": 64.0}
CODES = {"_target_": "mlxlab.models.options.Quantization", "bits": 8, "group_size": 32}
ORIGIN = Origin("tiny", "texts", 4)
TOKENS, REAL = mx.array([[5, 9, 77, 4, 6, 1]]), mx.ones((1, 6), mx.bool_)

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def node(name, **options):
    return {"_target_": TARGET, "config": CONFIGS[name], "dropout": 0.0, **options}


@pytest.mark.parametrize(
    "options", [{}, {"adapter": LORA}, {"quantization": CODES}], ids=["plain", "lora", "codes"]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_mlx_lm_gives_equal_logits_and_text(trained, tokenizer, tmp_path, name, options):
    source, out = (
        trained(node(name, **options), scale=3.0 if "quantization" not in options else 1.0),
        tmp_path / "hf",
    )
    export_hugging_face(source, out, ORIGIN)
    model, words = mlx_lm.load(str(out))
    np.testing.assert_allclose(
        np.array(model(TOKENS)), np.array(source.model(TOKENS, REAL)), atol=1e-4
    )
    row = tokenizer.encode("the cat", special=False)
    assert words.encode("the cat") == row
    length = len(row)
    for _ in range(6):
        row.append(
            int(source.model(mx.array([row]), mx.ones((1, len(row)), mx.bool_))[0, -1].argmax())
        )
    answer = (
        row[length : row.index(tokenizer.eos_id, length)]
        if tokenizer.eos_id in row[length:]
        else row[length:]
    )
    text = mlx_lm.generate(model, words, "the cat", max_tokens=6)
    assert text.strip() == words.decode(answer).strip()
    card = (out / "README.md").read_text()
    assert "library_name: mlx\n" in card
    assert "from transformers" not in card
    assert "torch_dtype" not in json.loads((out / "config.json").read_text())


def test_what_mlx_lm_keeps_in_float32_stays(trained, tmp_path):
    export_hugging_face(trained(node("glm4_moe")), tmp_path / "hf", ORIGIN, "bfloat16")
    arrays = mx.load(str(tmp_path / "hf" / "model.safetensors"))
    assert {
        name.rpartition(".")[2] for name, array in arrays.items() if array.dtype != mx.bfloat16
    } == {"e_score_correction_bias"}


def test_what_mlx_lm_lacks_is_one_line(trained, tmp_path):
    classifier = trained(node("llama"), Task("classification", 3, ("red", "green", "blue")))
    with pytest.raises(
        ConfigError, match=r"^model=mlx_lm: mlx-lm has language models only, no classifiers"
    ):
        export_hugging_face(classifier, tmp_path / "hf", ORIGIN)
    with pytest.raises(
        ConfigError, match=r"^model=mlx_lm: expected model=transformer for a GGUF file"
    ):
        export_gguf(trained(node("llama")), tmp_path / "model.gguf", "tiny")
    with pytest.raises(ConfigError, match=r"^model=mlx_lm: PEFT needs the names of transformers"):
        export_peft(trained(node("llama", adapter=LORA)), tmp_path / "peft", ORIGIN, None)
    assert not list(tmp_path.iterdir())
