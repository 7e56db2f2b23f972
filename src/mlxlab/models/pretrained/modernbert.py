"""ModernBERT (Warner et al. 2024): a pre-norm encoder with rotary positions, gates and mostly local attention."""

from typing import cast

from mlxlab.errors import ConfigError
from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import BERT, Family, Names, Node, Shape
from mlxlab.models.pretrained.llama import read_rope

NAMES: Names = (
    ("layers.{}.attention.query", "layers.{}.attn.Wqkv.0"),
    ("layers.{}.attention.key", "layers.{}.attn.Wqkv.1"),
    ("layers.{}.attention.value", "layers.{}.attn.Wqkv.2"),
    ("layers.{}.attention.out", "layers.{}.attn.Wo"),
    ("layers.{}.attention_norm", "layers.{}.attn_norm"),
    ("layers.{}.feed_forward.gate", "layers.{}.mlp.Wi.0"),
    ("layers.{}.feed_forward.up", "layers.{}.mlp.Wi.1"),
    ("layers.{}.feed_forward.down", "layers.{}.mlp.Wo"),
    ("layers.{}.feed_forward_norm", "layers.{}.mlp_norm"),
    ("layers", "layers"),  # anything else in a layer, for messages
    ("embedding", "embeddings.tok_embeddings"),
    ("embedding_norm", "embeddings.norm"),
    ("last_norm", "final_norm"),
    ("head.transform", "head.dense"),
    ("head.norm", "head.norm"),
    ("head.bias", "decoder.bias"),
)
SPLIT = (("attn.Wqkv", 3), ("mlp.Wi", 2))
MLP_TYPES = {"gelu": "geglu", "silu": "swiglu"}  # the activation of its gates, and our name
POOLING = {"cls": "first", "mean": "mean"}
BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
THETAS = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}
OPTIONS: Shape = {
    "position_embedding": "rope",
    "pre_norm": True,
    "num_token_types": 0,
    "first_attention_norm": False,
}


def modernbert_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    require(
        config,
        title,
        hidden_act=list(MLP_TYPES),
        classifier_activation=["gelu"],
        classifier_pooling=list(POOLING),
    )
    for key in ("tie_word_embeddings", "decoder_bias"):
        if not config.get(key, True):
            raise ConfigError(f"{title}: {key} is false, only true is supported")
    biases = {key: bool(config.get(key)) for key in BIASES}
    if len(set(biases.values())) > 1:
        different = ", ".join(f"{key}={str(value).lower()}" for key, value in biases.items())
        raise ConfigError(f"{title}: has some biases ({different}), only all or none are supported")
    mlp_type = MLP_TYPES[config.get("hidden_act", "gelu")]
    if node.get("mlp_type", "gelu") not in (
        "gelu",
        mlp_type,
    ):  # gelu is the default, and stands for BERT's
        raise ConfigError(f"{title}: has model.mlp_type={mlp_type}")
    thetas = read_thetas(config, title)
    return {
        **OPTIONS,
        "mlp_type": mlp_type,
        "norm_eps": config.get("layer_norm_eps", 1e-5),
        "bias": biases["norm_bias"],
        "global_attention_every": global_attention_every(config, title),
        "attention_window": config.get("local_attention", 128) // 2,
        "rope_theta": thetas["full_attention"],
        "local_rope_theta": thetas["sliding_attention"],
        "pooling": POOLING[config.get("classifier_pooling", "cls")],
    }


def read_thetas(config: PretrainedConfig, title: str) -> dict[str, float]:
    """Bases of the rotary frequencies of both types of attention; ConfigError where they are scaled."""
    parameters = config.get("rope_parameters") or {}
    if unknown := parameters.keys() - THETAS:
        raise ConfigError(
            f"{title}: rope_parameters has {min(unknown)}, expected {' and '.join(THETAS)}"
        )
    thetas = {}
    for attention, (key, default) in THETAS.items():
        rope = parameters.get(attention) or {}
        if not isinstance(rope, dict):
            raise ConfigError(f"{title}: rope_parameters.{attention} is {rope}, expected a mapping")
        theta = config.get(key, default)
        own = cast(PretrainedConfig, {**config, "rope_parameters": rope, "rope_theta": theta})
        thetas[attention], scaling = read_rope(own, title)
        if scaling is not None:
            raise ConfigError(f"{title}: rotary positions of type llama3 are not supported")
    return thetas


def global_attention_every(config: PretrainedConfig, title: str) -> int:
    """n where layers 0, n, 2n and so on attend to the whole text; ConfigError for another order of the layers."""
    types = config.get("layer_types")
    count = config["num_hidden_layers"]
    if types is None:
        return config.get("global_attn_every_n_layers", 3)
    if len(types) != count:
        raise ConfigError(f"{title}: layer_types: expected {count} layers, got {len(types)}")
    every = types.index("full_attention", 1) if "full_attention" in types[1:] else count
    if types != [
        "sliding_attention" if layer % every else "full_attention" for layer in range(count)
    ]:
        raise ConfigError(
            f"{title}: layer_types: expected full_attention in every n-th layer, the first included"
        )
    return every


FAMILY = Family("modernbert", (BERT,), NAMES, "model.", modernbert_shape, split=SPLIT)
