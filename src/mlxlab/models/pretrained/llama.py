"""Llama (Touvron et al. 2023), SmolLM2 among others, and Mistral without its sliding window."""

from dataclasses import asdict
from typing import TypedDict, cast

from mlxlab.config.instantiate import instantiate
from mlxlab.constraints import Positive, Size
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import (
    TRANSFORMER,
    Family,
    Names,
    Node,
    Shape,
    require_options,
    sizes_of,
)
from mlxlab.models.rope import Llama3Scaling

OPTIONS: Shape = {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}
MAX_SCALED = 2**16  # dimensions of a head: a frequency of each pair is computed one by one
SCALING = "mlxlab.models.rope.Llama3Scaling"
NAMES: Names = (
    ("layers.{}.attention.query", "layers.{}.self_attn.q_proj"),
    ("layers.{}.attention.key", "layers.{}.self_attn.k_proj"),
    ("layers.{}.attention.value", "layers.{}.self_attn.v_proj"),
    ("layers.{}.attention.out", "layers.{}.self_attn.o_proj"),
    ("layers.{}.feed_forward.gate", "layers.{}.mlp.gate_proj"),
    ("layers.{}.feed_forward.up", "layers.{}.mlp.up_proj"),
    ("layers.{}.feed_forward.down", "layers.{}.mlp.down_proj"),
    ("layers.{}.attention_norm", "layers.{}.input_layernorm"),
    ("layers.{}.feed_forward_norm", "layers.{}.post_attention_layernorm"),
    ("layers", "layers"),  # anything else in a layer, for messages
    ("embedding", "embed_tokens"),
    ("norm", "norm"),
    ("head.out", "lm_head"),
)


class ScalingConfig(TypedDict):
    """Scaled rotary positions of type llama3 in a config.json."""

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Size


def llama_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    require(config, title, sliding_window=[None])
    return decoder_shape(config, node, title, "Llama") | {
        "attention_bias": "all" if config.get("attention_bias") else "none"
    }


def decoder_shape(config: PretrainedConfig, node: Node, title: str, family: str) -> Shape:
    """What Llama and the decoders that follow it have in common."""
    if any(node.get(key, value) != value for key, value in OPTIONS.items()):
        required = ", ".join(f"model.{key}={value}" for key, value in OPTIONS.items())
        raise ConfigError(f"{title}: {family} has {required}")
    require(config, title, mlp_bias=[False], hidden_act=["silu"])
    head_dim = config.get("head_dim")
    heads = config["num_attention_heads"]
    theta, scaling = read_rope(config, title)
    size = head_dim or config["hidden_size"] // heads
    if scaling is not None and size > MAX_SCALED:
        raise ConfigError(
            f"{title}: heads of {size} dimensions, expected at most {MAX_SCALED} with a rope_scaling"
        )
    return OPTIONS | {
        "num_kv_heads": config.get("num_key_value_heads"),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "tie_embeddings": config.get("tie_word_embeddings", False),
        "head_dim": None
        if head_dim is None or head_dim * heads == config["hidden_size"]
        else head_dim,
        "qk_norm": False,
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


def llama_config(node: Node) -> dict[str, object]:
    require_options(node, "Llama", qk_norm=(False,), attention_bias=("none", "all"))
    return decoder_config(node, "llama") | {
        "attention_bias": node["attention_bias"] == "all",
        "mlp_bias": False,
    }


def decoder_config(node: Node, model_type: str) -> dict[str, object]:
    """The config.json of what Llama and the decoders that follow it have in common."""
    require_options(
        node, model_type, norm_type=("rms",), mlp_type=("swiglu",), position_embedding=("rope",)
    )
    options = node["rope_scaling"]
    scaling = asdict(instantiate(options, Llama3Scaling)) if options else {}
    return {
        "model_type": model_type,
        **sizes_of(node),
        "num_key_value_heads": node["num_kv_heads"] or node["num_heads"],
        "head_dim": node["head_dim"] or node["hidden_size"] // node["num_heads"],
        "hidden_act": "silu",
        "rms_norm_eps": node["norm_eps"],
        "rope_theta": node["rope_theta"],
        **({"rope_scaling": {"rope_type": "llama3", **scaling}} if scaling else {}),
        "tie_word_embeddings": node["tie_embeddings"],
    }


LLAMA = Family("llama", (TRANSFORMER,), NAMES, "model.", llama_shape, llama_config)
MISTRAL = Family("mistral", (TRANSFORMER,), NAMES, "model.", llama_shape)
