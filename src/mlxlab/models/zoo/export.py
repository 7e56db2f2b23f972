"""A trained `MlxLm` as mlx-lm stores it."""

from collections.abc import Callable, Mapping
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
    config = published_config(model, node)
    return config, {published_name(name): array for name, array in merged_parameters(model).items()}


def published_config(model: Model, node: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json; arguments and errors are those of `to_published`."""
    if not isinstance(model.backbone, MlxLm) or not model.backbone.returns_logits:
        raise ConfigError("model=mlx_lm: mlx-lm has language models only, no classifiers; expected model=bert")
    return with_vocabulary(node["config"], model.backbone.output_size)


def published_name(path: str) -> str:
    """mlx-lm's name of a parameter of the model."""
    return path.removeprefix(PREFIX)


def cast_predicate(model: Model) -> Callable[[str], bool]:
    """Whether mlx-lm would store the array of a published name in fewer bits than float32."""
    assert isinstance(model.backbone, MlxLm)
    casts: Callable[[str], bool] = getattr(model.backbone.model, "cast_predicate", lambda name: True)
    return casts
