"""A trained `MlxLm` as mlx-lm stores it."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.merge import merged_parameters
from mlxlab.models.model import Model
from mlxlab.models.zoo.architectures import with_vocabulary
from mlxlab.models.zoo.mlx_lm import MlxLm

PREFIX = "backbone.model."  # of mlx-lm's names in a model


def to_published(model: Model, node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """The config.json and the arrays of a trained language model, by which mlx-lm loads it; adapters are merged.

    Args:
        node: its `model` node.

    Raises:
        ConfigError: it is not a language model: mlx-lm has no classifiers.
    """
    if not isinstance(model.backbone, MlxLm) or not model.backbone.returns_logits:
        raise ConfigError("only a language model of model=mlx_lm can be written for mlx-lm")
    arrays = {name.removeprefix(PREFIX): array for name, array in merged_parameters(model).items()}
    return with_vocabulary(node["config"], model.backbone.output_size), arrays
