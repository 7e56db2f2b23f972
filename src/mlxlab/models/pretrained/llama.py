"""Llama (Touvron et al. 2023), SmolLM2 among others, and Mistral without its sliding window."""

from mlxlab.errors import ConfigError
from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import TRANSFORMER, Family, Names, Node, Shape, require_options, sizes_of

OPTIONS: Shape = {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}
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


def llama_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    if any(node.get(key, value) != value for key, value in OPTIONS.items()):
        required = ", ".join(f"model.{key}={value}" for key, value in OPTIONS.items())
        raise ConfigError(f"{title}: Llama has {required}")
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    require(config, title, attention_bias=[False], mlp_bias=[False], sliding_window=[None])
    require(config, title, hidden_act=["silu"], head_dim=[head_dim])
    return OPTIONS | {
        "num_kv_heads": config.get("num_key_value_heads"),
        "rope_theta": rope_theta(config, title),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "tie_embeddings": config.get("tie_word_embeddings", False),
    }


def rope_theta(config: PretrainedConfig, title: str) -> float:
    """The base of the rotary frequencies; ConfigError if they are scaled."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}  # newer files have the base in it
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise ConfigError(f"{title}: rotary positions of type {rope_type} are not supported")
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    if not isinstance(theta, int | float) or theta <= 0:
        raise ConfigError(f"{title}: rope_theta is {theta}, expected a number above 0")
    return float(theta)


def llama_config(node: Node) -> dict[str, object]:
    require_options(node, "Llama", norm_type=("rms",), mlp_type=("swiglu",), position_embedding=("rope",))
    return {
        "model_type": "llama",
        **sizes_of(node),
        "num_key_value_heads": node.get("num_kv_heads") or node["num_heads"],
        "head_dim": node.get("head_dim") or node["hidden_size"] // node["num_heads"],
        "hidden_act": "silu",
        "rms_norm_eps": node.get("norm_eps", 1e-5),
        "rope_theta": node.get("rope_theta", 10000.0),
        "tie_word_embeddings": node.get("tie_embeddings", True),
        "attention_bias": False,
        "mlp_bias": False,
    }


LLAMA = Family("llama", (TRANSFORMER,), NAMES, "model.", llama_shape, llama_config)
MISTRAL = Family("mistral", (TRANSFORMER,), NAMES, "model.", llama_shape, llama_config)
