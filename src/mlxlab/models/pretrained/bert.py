"""BERT (Devlin et al. 2018), MiniLM among others, and the encoders that follow it.

RoBERTa (Liu et al. 2019) has positions that begin behind that of padding, and one token type. DistilBERT (Sanh et al.
2019) has neither token types nor a pooler. ModernBERT (Warner et al. 2024) is a pre-norm encoder with rotary positions,
gates and mostly local attention.
"""

from dataclasses import replace
from typing import cast

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.models.layers import ACTIVATIONS, GATES
from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import (
    BERT,
    CNN_HYBRID,
    Family,
    Names,
    Node,
    Shape,
    head_dims,
    require_options,
    sizes_of,
)
from mlxlab.models.pretrained.llama import read_rope

LAYER_NAMES: Names = {
    "layers.{}.attention.query": "encoder.layer.{}.attention.self.query",
    "layers.{}.attention.key": "encoder.layer.{}.attention.self.key",
    "layers.{}.attention.value": "encoder.layer.{}.attention.self.value",
    "layers.{}.attention.out": "encoder.layer.{}.attention.output.dense",
    "layers.{}.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers.{}.attention": "encoder.layer.{}.attention",  # anything else in a layer, for messages
    "layers.{}.feed_forward.up": "encoder.layer.{}.intermediate.dense",
    "layers.{}.feed_forward.down": "encoder.layer.{}.output.dense",
    "layers.{}.feed_forward_norm": "encoder.layer.{}.output.LayerNorm",
    "embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "type_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
}
NAMES: Names = {
    **LAYER_NAMES,
    "head.transform": "cls.predictions.transform.dense",
    "head.norm": "cls.predictions.transform.LayerNorm",
    "head.bias": "cls.predictions.bias",
}
ROBERTA_NAMES: Names = {
    **LAYER_NAMES,
    "head.transform": "lm_head.dense",
    "head.norm": "lm_head.layer_norm",
    "head.bias": "lm_head.bias",
}
DISTILBERT_NAMES: Names = {
    "layers.{}.attention.query": "transformer.layer.{}.attention.q_lin",
    "layers.{}.attention.key": "transformer.layer.{}.attention.k_lin",
    "layers.{}.attention.value": "transformer.layer.{}.attention.v_lin",
    "layers.{}.attention.out": "transformer.layer.{}.attention.out_lin",
    "layers.{}.attention_norm": "transformer.layer.{}.sa_layer_norm",
    "layers.{}.feed_forward.up": "transformer.layer.{}.ffn.lin1",
    "layers.{}.feed_forward.down": "transformer.layer.{}.ffn.lin2",
    "layers.{}.feed_forward_norm": "transformer.layer.{}.output_layer_norm",
    "layers": "transformer.layer",  # anything else in a layer, for messages
    "embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "head.transform": "vocab_transform",
    "head.norm": "vocab_layer_norm",
    "head.bias": "vocab_projector.bias",
}
MODERNBERT_NAMES: Names = {
    "layers.{}.attention.query": "layers.{}.attn.Wqkv.0",
    "layers.{}.attention.key": "layers.{}.attn.Wqkv.1",
    "layers.{}.attention.value": "layers.{}.attn.Wqkv.2",
    "layers.{}.attention.out": "layers.{}.attn.Wo",
    "layers.{}.attention_norm": "layers.{}.attn_norm",
    "layers.{}.feed_forward.gate": "layers.{}.mlp.Wi.0",
    "layers.{}.feed_forward.up": "layers.{}.mlp.Wi.1",
    "layers.{}.feed_forward.down": "layers.{}.mlp.Wo",
    "layers.{}.feed_forward_norm": "layers.{}.mlp_norm",
    "layers": "layers",  # anything else in a layer, for messages
    "embedding": "embeddings.tok_embeddings",
    "embedding_norm": "embeddings.norm",
    "last_norm": "final_norm",
    "head.transform": "head.dense",
    "head.norm": "head.norm",
    "head.bias": "decoder.bias",
}
MODERNBERT_SPLIT = (("attn.Wqkv", 3), ("mlp.Wi", 2))
MLP_TYPES = {"gelu": "geglu", "silu": "swiglu"}  # the activation of its gates, and our name
POOLING = {"cls": "first", "mean": "mean"}
BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
THETAS = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}
MODERNBERT_OPTIONS: Shape = {
    "position_embedding": "rope",
    "pre_norm": True,
    "num_token_types": 0,
    "first_attention_norm": False,
}


def bert_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    supported: list[object] = [1, 2]
    if node.get("_target_") == CNN_HYBRID:
        supported = [2]
    require(config, title, position_embedding_type=["absolute"], type_vocab_size=supported)
    shape = encoder_shape(config, node, title, "BERT")
    types = config.get("type_vocab_size", 2)
    if types != 2:
        shape["num_token_types"] = types
    return shape


def encoder_shape(config: PretrainedConfig, node: Node, title: str, family: str) -> Shape:
    """What BERT and the encoders of its architecture have in common."""
    options: Shape = {"position_embedding": "learned", "pre_norm": False}
    if (
        any(node.get(key, value) != value for key, value in options.items())
        or node.get("mlp_type") in GATES
    ):
        raise ConfigError(
            f"{title}: {family} has model.position_embedding=learned, model.pre_norm=false and no gated model.mlp_type"
        )
    require(config, title, hidden_act=list(ACTIVATIONS))
    return options | {
        "mlp_type": config.get("hidden_act", "gelu"),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
    }


def roberta_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    require(config, title, position_embedding_type=["absolute"], type_vocab_size=[1, 2])
    positions = config.get("max_position_embeddings", 512) - _first_position(config)
    if positions < 1:
        raise ConfigError(
            f"{title}: has no positions behind that of padding ({_first_position(config) - 1})"
        )
    return encoder_shape(config, node, title, "RoBERTa") | {
        "max_position_embeddings": positions,
        "num_token_types": config.get("type_vocab_size", 2),
    }


def without_padding(arrays: Arrays, config: PretrainedConfig) -> Arrays:
    """The position of the first token is row 0 of our table."""
    table = arrays.get("position_embedding.weight")
    if table is None:
        return arrays
    return arrays | {"position_embedding.weight": table[_first_position(config) :]}


def _first_position(config: PretrainedConfig) -> int:
    padding = config.get("pad_token_id")
    if padding is None:
        return 2
    return padding + 1


def distilbert_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    require(config, title, hidden_act=["gelu", "relu"])
    own = {"num_token_types": 1, "pooling": "first"}
    return encoder_shape(config, node, title, "DistilBERT") | own


def with_token_type(arrays: Arrays, config: PretrainedConfig) -> Arrays:
    """Our token type, which adds nothing."""
    return arrays | {"type_embedding.weight": mx.zeros((1, config["hidden_size"]))}


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
        **MODERNBERT_OPTIONS,
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
    every = count
    if "full_attention" in types[1:]:
        every = types.index("full_attention", 1)
    is_full = [kind == "full_attention" for kind in types]
    if {*types} - {*THETAS} or is_full != [layer % every == 0 for layer in range(count)]:
        raise ConfigError(
            f"{title}: layer_types: expected full_attention in every n-th layer, the first included"
        )
    return every


def bert_config(node: Node) -> dict[str, object]:
    """The config.json of all constructor arguments; ConfigError where BERT has no such option, naming our key."""
    require_options(
        node,
        "BERT",
        position_embedding=("learned",),
        pre_norm=(False,),
        mlp_type=tuple(ACTIVATIONS),
        num_token_types=(2, 1),
        bias=(True,),
        global_attention_every=(1,),
        head_dim=head_dims(node),
    )
    if node["gated_layers"]:
        raise ConfigError("model.gated_layers: BERT has no gates")
    return {
        "model_type": "bert",
        **sizes_of(node),
        "hidden_act": node["mlp_type"],
        "layer_norm_eps": node["norm_eps"],
        "hidden_dropout_prob": node["dropout"],
        "attention_probs_dropout_prob": node["dropout"],
        "position_embedding_type": "absolute",
        "type_vocab_size": node["num_token_types"],
        "tie_word_embeddings": True,
    }


MODERNBERT = Family(
    "modernbert", (BERT,), MODERNBERT_NAMES, "model.", modernbert_shape, split=MODERNBERT_SPLIT
)
FAMILY = Family("bert", (BERT, CNN_HYBRID), NAMES, "bert.", bert_shape)
ROBERTA = Family(
    "roberta", (BERT,), ROBERTA_NAMES, "roberta.", roberta_shape, adapt=without_padding
)
XLM = replace(ROBERTA, model_type="xlm-roberta")
DISTILBERT = Family(
    "distilbert", (BERT,), DISTILBERT_NAMES, "distilbert.", distilbert_shape, adapt=with_token_type
)
