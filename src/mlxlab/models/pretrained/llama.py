"""Llama (Touvron et al. 2023), SmolLM2 among others, and the decoders that follow it.

Mistral has no sliding window here, Qwen2 (Yang et al. 2024) has biases of queries, keys and values, Qwen3 (2025) norms
of queries and keys.
"""

from dataclasses import asdict, replace
from typing import TypedDict, cast

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import (
    TRANSFORMER,
    Family,
    Names,
    Node,
    Shape,
    head_dims,
    require_options,
    sizes_of,
)
from mlxlab.models.rope import Llama3Scaling
from mlxlab.schema.constraints import Positive, Size

OPTIONS: Shape = {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}
MAX_SCALED = 2**16  # dimensions of a head: a frequency of each pair is computed one by one
SCALING = "mlxlab.models.rope.Llama3Scaling"
NAMES: Names = {
    "layers.{}.attention.query": "layers.{}.self_attn.q_proj",
    "layers.{}.attention.key": "layers.{}.self_attn.k_proj",
    "layers.{}.attention.value": "layers.{}.self_attn.v_proj",
    "layers.{}.attention.out": "layers.{}.self_attn.o_proj",
    "layers.{}.feed_forward.gate": "layers.{}.mlp.gate_proj",
    "layers.{}.feed_forward.up": "layers.{}.mlp.up_proj",
    "layers.{}.feed_forward.down": "layers.{}.mlp.down_proj",
    "layers.{}.attention_norm": "layers.{}.input_layernorm",
    "layers.{}.feed_forward_norm": "layers.{}.post_attention_layernorm",
    "layers": "layers",  # anything else in a layer, for messages
    "embedding": "embed_tokens",
    "norm": "norm",
    "head.out": "lm_head",
}
NORM_NAMES: Names = {
    "layers.{}.attention.query_norm": "layers.{}.self_attn.q_norm",
    "layers.{}.attention.key_norm": "layers.{}.self_attn.k_norm",
}


class ScalingConfig(TypedDict):
    """Scaled rotary positions of type llama3 in a config.json."""

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Size


def decoder_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    model_type = config.get("model_type", "llama")
    if any(node.get(key, value) != value for key, value in OPTIONS.items()):
        required = ", ".join(f"model.{key}={value}" for key, value in OPTIONS.items())
        raise ConfigError(f"{title}: {model_type.capitalize()} has {required}")
    require(config, title, mlp_bias=[False], hidden_act=["silu"])
    if model_type in ("qwen2", "qwen3"):
        require(config, title, use_sliding_window=[False])
    else:
        require(config, title, sliding_window=[None])
    attention_bias = "none"
    if model_type == "qwen2":
        attention_bias = "qkv"
    elif config.get("attention_bias"):
        attention_bias = "all"
    head_dim = config.get("head_dim")
    heads = config["num_attention_heads"]
    theta, scaling = read_rope(config, title)
    size = head_dim or config["hidden_size"] // heads
    if scaling is not None and size > MAX_SCALED:
        raise ConfigError(
            f"{title}: heads of {size} dimensions, expected at most {MAX_SCALED} with a rope_scaling"
        )
    if size * heads == config["hidden_size"]:
        head_dim = None
    return OPTIONS | {
        "num_kv_heads": config.get("num_key_value_heads"),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "tie_embeddings": config.get("tie_word_embeddings", False),
        "head_dim": head_dim,
        "attention_bias": attention_bias,
        "qk_norm": model_type == "qwen3",
    }


def read_rope(config: PretrainedConfig, title: str) -> tuple[float, dict[str, object] | None]:
    """Base and scaling of the rotary frequencies; ConfigError for a scaling other than Llama 3's."""
    rope = (
        config.get("rope_parameters") or config.get("rope_scaling") or {}
    )  # newer files have the base in it
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    if not isinstance(theta, int | float) or theta <= 0:
        raise ConfigError(f"{title}: rope_theta is {theta}, expected a number above 0")
    if rope_type == "default":
        return float(theta), None
    if rope_type != "llama3":
        raise ConfigError(f"{title}: rotary positions of type {rope_type} are not supported")
    try:
        scaling = validate(
            {key: rope[key] for key in ScalingConfig.__annotations__ if key in rope}, ScalingConfig
        )
    except ShapeError as error:
        raise DataError(f"{title}: rotary positions: {error}") from None
    return float(theta), {"_target_": SCALING, **cast(dict[str, object], scaling)}


def export_decoder(node: Node) -> tuple[Family, dict[str, object]]:
    """The family in whose layout a decoder can be written, and its config.json; ConfigError if there is none."""
    family = LLAMA
    if node["qk_norm"]:
        family = QWEN3
    elif node["attention_bias"] == "qkv":
        family = QWEN2
    name = family.model_type.capitalize()
    if family is not QWEN2:
        require_options(node, name, attention_bias=("none", "all"))
    require_options(node, name, **{key: (value,) for key, value in OPTIONS.items()})
    if family is QWEN2:
        require_options(node, name, head_dim=head_dims(node))
    config: dict[str, object] = {
        "model_type": family.model_type,
        **sizes_of(node),
        "num_key_value_heads": node["num_kv_heads"] or node["num_heads"],
        "head_dim": node["head_dim"] or node["hidden_size"] // node["num_heads"],
        "hidden_act": "silu",
        "rms_norm_eps": node["norm_eps"],
        "rope_theta": node["rope_theta"],
        "tie_word_embeddings": node["tie_embeddings"],
    }
    if family is not QWEN2:
        config["attention_bias"] = node["attention_bias"] == "all"
    if node["rope_scaling"]:
        scaling = asdict(instantiate(node["rope_scaling"], Llama3Scaling))
        config["rope_scaling"] = {"rope_type": "llama3", **scaling}
    return family, config


LLAMA = Family("llama", (TRANSFORMER,), NAMES, "model.", decoder_shape)
MISTRAL = replace(LLAMA, model_type="mistral")
QWEN2 = replace(LLAMA, model_type="qwen2")
QWEN3 = replace(LLAMA, model_type="qwen3", names={**NORM_NAMES, **NAMES})
