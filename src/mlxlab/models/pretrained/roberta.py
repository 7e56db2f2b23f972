"""RoBERTa (Liu et al. 2019): BERT whose positions begin behind that of padding, with one token type."""

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.models.pretrained.bert import LAYER_NAMES, encoder_shape
from mlxlab.models.pretrained.config import PretrainedConfig, require
from mlxlab.models.pretrained.family import BERT, Family, Names, Node, Shape

NAMES: Names = (
    *LAYER_NAMES,
    ("head.transform", "lm_head.dense"),
    ("head.norm", "lm_head.layer_norm"),
    ("head.bias", "lm_head.bias"),
)


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
    return (
        arrays
        if table is None
        else arrays | {"position_embedding.weight": table[_first_position(config) :]}
    )


def _first_position(config: PretrainedConfig) -> int:
    padding = config.get("pad_token_id")
    return 2 if padding is None else padding + 1


FAMILY = Family("roberta", (BERT,), NAMES, "roberta.", roberta_shape, adapt=without_padding)
XLM = Family("xlm-roberta", (BERT,), NAMES, "roberta.", roberta_shape, adapt=without_padding)
