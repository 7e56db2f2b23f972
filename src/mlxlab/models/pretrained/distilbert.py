"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler."""

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.models.pretrained.bert import encoder_shape
from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import BERT, Family, Names, Node, Shape

NAMES: Names = (
    ("layers.{}.attention.query", "transformer.layer.{}.attention.q_lin"),
    ("layers.{}.attention.key", "transformer.layer.{}.attention.k_lin"),
    ("layers.{}.attention.value", "transformer.layer.{}.attention.v_lin"),
    ("layers.{}.attention.out", "transformer.layer.{}.attention.out_lin"),
    ("layers.{}.attention_norm", "transformer.layer.{}.sa_layer_norm"),
    ("layers.{}.feed_forward.up", "transformer.layer.{}.ffn.lin1"),
    ("layers.{}.feed_forward.down", "transformer.layer.{}.ffn.lin2"),
    ("layers.{}.feed_forward_norm", "transformer.layer.{}.output_layer_norm"),
    ("layers", "transformer.layer"),  # anything else in a layer, for messages
    ("embedding", "embeddings.word_embeddings"),
    ("position_embedding", "embeddings.position_embeddings"),
    ("embedding_norm", "embeddings.LayerNorm"),
    ("head.transform", "vocab_transform"),
    ("head.norm", "vocab_layer_norm"),
    ("head.bias", "vocab_projector.bias"),
)


def distilbert_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    require(config, title, hidden_act=["gelu", "relu"])
    own = {"num_token_types": 1, "pooling": "first"}
    return encoder_shape(config, node, title, "DistilBERT") | own


def with_token_type(arrays: Arrays, config: PretrainedConfig) -> Arrays:
    """Our token type, which adds nothing."""
    return arrays | {"type_embedding.weight": mx.zeros((1, config["hidden_size"]))}


FAMILY = Family(
    "distilbert", (BERT,), NAMES, "distilbert.", distilbert_shape, adapt=with_token_type
)
