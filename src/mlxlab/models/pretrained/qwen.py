"""Qwen2 (Yang et al. 2024), with biases of queries, keys and values, and Qwen3 (2025), which normalizes them."""

from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import (
    TRANSFORMER,
    Family,
    Names,
    Node,
    Shape,
    head_dims,
    require_options,
)
from mlxlab.models.pretrained.llama import NAMES, decoder_config, decoder_shape

QWEN3_NAMES: Names = (
    ("layers.{}.attention.query_norm", "layers.{}.self_attn.q_norm"),
    ("layers.{}.attention.key_norm", "layers.{}.self_attn.k_norm"),
    *NAMES,
)


def qwen2_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    require(config, title, use_sliding_window=[False])
    return decoder_shape(config, node, title, "Qwen2") | {"attention_bias": "qkv"}


def qwen3_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    require(config, title, use_sliding_window=[False])
    bias = "all" if config.get("attention_bias") else "none"
    return decoder_shape(config, node, title, "Qwen3") | {"attention_bias": bias, "qk_norm": True}


def qwen2_config(node: Node) -> dict[str, object]:
    require_options(
        node, "Qwen2", attention_bias=("qkv",), qk_norm=(False,), head_dim=head_dims(node)
    )
    return decoder_config(node, "qwen2") | {"use_sliding_window": False}


def qwen3_config(node: Node) -> dict[str, object]:
    require_options(node, "Qwen3", attention_bias=("none", "all"), qk_norm=(True,))
    bias = node["attention_bias"] == "all"
    return decoder_config(node, "qwen3") | {"attention_bias": bias, "use_sliding_window": False}


QWEN2 = Family("qwen2", (TRANSFORMER,), NAMES, "model.", qwen2_shape, qwen2_config)
QWEN3 = Family("qwen3", (TRANSFORMER,), QWEN3_NAMES, "model.", qwen3_shape, qwen3_config)
