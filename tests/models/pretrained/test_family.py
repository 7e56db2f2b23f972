"""Families of published models: names and config.json, both ways."""

import inspect

import mlx.core as mx
import pytest

from mlxlab.checkpoint.parameter_names import rename
from mlxlab.errors import ConfigError
from mlxlab.models.bert import Bert
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model, build_head
from mlxlab.models.pretrained import llama
from mlxlab.models.pretrained.config import SYNONYMS, PretrainedConfig
from mlxlab.models.pretrained.family import BERT, SIZES, TRANSFORMER, split_arrays
from mlxlab.models.pretrained.weights import export_family
from mlxlab.models.transformer import Transformer

SHAPE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48}
SHAPE |= {"vocab_size": 50}
SCALING = {"_target_": llama.SCALING, "factor": 4.0, "low_freq_factor": 1.0}
SCALING |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
NODES = {
    "bert": {"_target_": BERT, "max_position_embeddings": 64, "norm_eps": 1e-6, "mlp_type": "relu"},
    "llama": {"_target_": TRANSFORMER, "num_kv_heads": 2, "rope_theta": 5e5},
    "qwen2": {"_target_": TRANSFORMER, "attention_bias": "qkv", "tie_embeddings": False},
    "qwen3": {"_target_": TRANSFORMER, "qk_norm": True, "head_dim": 12, "rope_scaling": SCALING},
}


BACKBONES = {BERT: Bert, TRANSFORMER: Transformer}


def with_defaults(node):
    """The node with all arguments of its backbone."""
    parameters = inspect.signature(BACKBONES[node["_target_"]]).parameters
    return {name: each.default for name, each in parameters.items()} | node


def language_model(node):
    backbone = BACKBONES[node["_target_"]](
        **{key: value for key, value in node.items() if key not in ("_target_", "rope_scaling")}
    )
    return Model(backbone, build_head(backbone, kind="language_modelling"))


@pytest.mark.parametrize("model_type", NODES)
def test_names_and_shape_come_back(model_type):
    node = NODES[model_type] | SHAPE
    family, content = export_family(with_defaults(node))
    assert family.model_type == content["model_type"] == model_type
    paths = list(named_parameters(language_model(node)))
    published = [family.published_name(path) for path in paths]
    assert len(set(published)) == len(paths)
    own = [path.removeprefix("backbone.") for path in paths]
    assert [rename(name, family.table()) for name in published] == own
    content = {SYNONYMS.get(key, key): value for key, value in content.items()}
    config = PretrainedConfig(
        **{key: value for key, value in content.items() if key in PretrainedConfig.__annotations__}
    )
    shape = {SIZES[key]: value for key, value in config.items() if key in SIZES} | family.shape(
        config, {}, "x"
    )
    assert {key: shape[key] for key in node if key != "_target_"} == {
        k: v for k, v in node.items() if k != "_target_"
    }


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"_target_": BERT, "pre_norm": True}, "pre_norm"),
        ({"_target_": BERT, "gated_layers": [0]}, "gated_layers"),
        ({"_target_": TRANSFORMER, "norm_type": "layer"}, "norm_type"),
    ],
)
def test_an_option_that_no_family_has_is_named(node, key):
    with pytest.raises(ConfigError, match=key):
        export_family(with_defaults(SHAPE | node))


def test_arrays_of_several_layers_are_split_along_their_rows():
    arrays = split_arrays(
        {"a.qkv.weight": mx.arange(12).reshape(6, 2), "b.weight": mx.ones(6)}, [("qkv", 3)]
    )
    assert arrays.keys() == {"a.qkv.0.weight", "a.qkv.1.weight", "a.qkv.2.weight", "b.weight"}
    assert arrays["a.qkv.1.weight"].tolist() == [[4, 5], [6, 7]]
