"""All families of published models, by type and by backbone."""

from collections.abc import Sequence

from mlxlab.errors import ConfigError
from mlxlab.models.pretrained import bert, llama, modernbert
from mlxlab.models.pretrained.config import PretrainedConfig
from mlxlab.models.pretrained.family import BERT, TRANSFORMER, Family, Node

FAMILIES: Sequence[Family] = (
    bert.FAMILY,
    bert.ROBERTA,
    bert.XLM,
    bert.DISTILBERT,
    modernbert.FAMILY,
    llama.LLAMA,
    llama.MISTRAL,
    llama.QWEN2,
    llama.QWEN3,
)


def families_of(target: str) -> list[Family]:
    """The families whose weights a backbone can take, by its `_target_`."""
    return [family for family in FAMILIES if target in family.targets]


def family_of(config: PretrainedConfig, target: str, title: str) -> Family:
    """The family of a config.json for a backbone; ConfigError if it cannot take its weights."""
    families = families_of(target)
    if not families:
        raise ConfigError(f"{title}: {target} cannot load pretrained weights")
    model_type = config.get("model_type", families[0].model_type)
    for family in families:
        if family.model_type == model_type:
            return family
    option = target.split(".")[-2]
    supported = ", ".join(family.model_type for family in families)
    raise ConfigError(f"{title}: is of type {model_type}; model={option} loads {supported}")


def export_family(node: Node) -> tuple[Family, dict[str, object]]:
    """The family in whose layout a model can be written, and its config.json.

    Args:
        node: all constructor arguments of the backbone, with `_target_` and `vocab_size`.

    Raises:
        ConfigError: no family computes the same; it names an option of the node.
    """
    target = str(node["_target_"])
    if target == BERT:
        return bert.FAMILY, bert.bert_config(node)
    if target == TRANSFORMER:
        return llama.export_decoder(node)
    raise ConfigError(f"{target} has no counterpart in Hugging Face's layout")
