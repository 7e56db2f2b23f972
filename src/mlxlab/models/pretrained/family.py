"""A family of published models: shape and names of their weights, from Hugging Face's layout to ours and back."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.parameter_names import Table
from mlxlab.errors import ConfigError
from mlxlab.models.pretrained.config import PretrainedConfig
from mlxlab.terminal.wording import shown

Node = Mapping[str, Any]  # a `model` node of the configuration
Shape = dict[str, object]  # constructor arguments of a backbone
Names = Mapping[
    str, str
]  # our module or parameter -> the published one; {} is the number of a layer
SIZES = {  # keys of a config.json -> arguments
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
}

BERT = "mlxlab.models.bert.Bert"
CNN_HYBRID = "mlxlab.models.cnn_hybrid.CnnHybrid"
TRANSFORMER = "mlxlab.models.transformer.Transformer"
TABULAR = "mlxlab.models.tabular.Tabular"
LEGACY = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))  # names in early files of BERT


def unchanged(arrays: Arrays, config: PretrainedConfig) -> Arrays:
    """The arrays of a family whose weights are stored as ours."""
    return arrays


@dataclass(frozen=True)
class Family:
    """One `model_type`: how its config.json and its weights are read, and the names of its weights.

    Args:
        model_type: as in config.json.
        targets: backbones (`_target_`) that can take its weights.
        names: of modules below the backbone, and below `head.` those of its language-modelling head.
        prefix: of the names of the backbone in files with a head.
        shape: (config.json, `model` node, title of messages) -> constructor arguments, sizes apart; ConfigError for an
            unsupported architecture, or an option of the node that contradicts it.
        split: modules whose arrays hold several of ours one after the other, along the rows, and how many; the names
            of the parts end in their number.
        adapt: arrays by our names, as the file has them -> as the backbone has them.
    """

    model_type: str
    targets: tuple[str, ...]
    names: Names
    prefix: str
    shape: Callable[[PretrainedConfig, Node, str], Shape]
    split: tuple[tuple[str, int], ...] = ()
    adapt: Callable[[Arrays, PretrainedConfig], Arrays] = unchanged

    def table(self) -> Table:
        """Regular expressions of published names, and ours."""
        rules = [*LEGACY]
        for ours, theirs in self.names.items():
            pattern, replacement = _rule(theirs, ours)
            rules.append((rf"^(?:{re.escape(self.prefix)})?{pattern}(?=\.|$)", replacement))
        return rules

    def published_name(self, path: str) -> str:
        """The published name of a parameter of a model, `backbone.` or `head.` first; KeyError if there is none."""
        own = path.removeprefix("backbone.").removeprefix("encoder.")
        for ours, theirs in self.names.items():
            pattern, replacement = _rule(ours, theirs)
            name, count = re.subn(rf"^{pattern}(?=(\.\w+)?$)", replacement, own)
            if count:
                if not own.startswith("head."):
                    name = self.prefix + name
                return name
        raise KeyError(path)


def _rule(name: str, new_name: str) -> tuple[str, str]:
    """The regular expression of a name, of which {} is a number, and its replacement."""
    return re.escape(name).replace(r"\{\}", r"(\d+)"), new_name.replace("{}", r"\1")


def split_arrays(arrays: Arrays, split: Iterable[tuple[str, int]]) -> Arrays:
    """The parts of arrays that hold several of ours, under their name and number; all others as they are."""
    parts = dict(split)
    result = {}
    for name, array in arrays.items():
        module, _, kind = name.rpartition(".")
        count = next((count for suffix, count in parts.items() if module.endswith(suffix)), 1)
        if count == 1 or array.shape[0] % count:
            result[name] = array
            continue
        rows = array.shape[0] // count
        result |= {f"{module}.{i}.{kind}": array[i * rows : (i + 1) * rows] for i in range(count)}
    return result


def sizes_of(node: Node) -> dict[str, object]:
    """The sizes of a node under the keys of a config.json."""
    return {key: node[name] for key, name in SIZES.items() if name in node}


def head_dims(node: Node) -> tuple[object, ...]:
    """The values of `head_dim` with which all heads together are as wide as a state."""
    return None, node["hidden_size"] // node["num_heads"]


def require_options(node: Node, family: str, **options: tuple[object, ...]) -> None:
    """ConfigError for an option of a node with a value that a published family does not have."""
    for key, values in options.items():
        if node[key] not in values:
            expected = " or ".join(map(shown, values))
            raise ConfigError(f"model.{key}={shown(node[key])}: {family} has {expected}")
