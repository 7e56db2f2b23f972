"""A trained `MlxLm` as mlx-lm stores it."""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.merge import merged_parameters
from mlxlab.models.model import Model
from mlxlab.models.zoo.architectures import with_vocabulary
from mlxlab.models.zoo.mlx_lm import MlxLm

PREFIX = "backbone.model."  # precedes mlx-lm's names in a model


def published_config(model: Model, node: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a trained language model, by which mlx-lm loads its weights; adapters are merged.

    Args:
        node: its `model` node.

    Raises:
        ConfigError: it is not a language model: mlx-lm has no classifiers; or mlx-lm would load another one.
    """
    if not isinstance(model.backbone, MlxLm) or not model.backbone.returns_logits:
        raise ConfigError(
            "model=mlx_lm: mlx-lm has language models only, no classifiers; expected model=bert"
        )
    _refuse_misread(model, model.backbone)
    return with_vocabulary(node["config"], model.backbone.output_size)


def published_name(path: str) -> str:
    """mlx-lm's name of a parameter of the model."""
    return path.removeprefix(PREFIX)


def cast_predicate(model: Model) -> Callable[[str], bool]:
    """Whether mlx-lm would store the array of a published name in fewer bits than float32."""
    assert isinstance(model.backbone, MlxLm)
    casts: Callable[[str], bool] = getattr(
        model.backbone.model, "cast_predicate", lambda name: True
    )
    return casts


def _refuse_misread(model: Model, backbone: MlxLm) -> None:
    """ConfigError where mlx-lm changes weights of this architecture when it loads them."""
    arrays = {published_name(path): array for path, array in merged_parameters(model).items()}
    loaded = backbone.sanitize(dict(arrays))
    for path in sorted(arrays.keys() | loaded.keys()):
        if path in arrays and path in loaded and mx.array_equal(arrays[path], loaded[path]):
            continue
        name = backbone.model.model_type
        raise ConfigError(f"mlx-lm changes weights of {name} when it loads them, such as {path}")
