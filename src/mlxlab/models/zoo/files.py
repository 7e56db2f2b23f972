"""Models of mlx-lm as files: published ones for `MlxLm`, by mlx-lm's own table of names, and a trained one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxlab.checkpoint.arrays import evaluate_finite, misfits
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.files.untrusted import read_json
from mlxlab.models.adapters.lora import merged_parameters
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model
from mlxlab.models.zoo.architectures import VOCABULARY, refuse_code, text_value, with_vocabulary
from mlxlab.models.zoo.mlx_lm import MlxLm
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.wording import some

QUANTIZED = ("quantization", "quantization_config")
PREFIX = "backbone.model."  # precedes mlx-lm's names in a model


def read_published_config(folder: Path, vocab_size: int, title: str) -> dict[str, Any]:
    """The arguments of `MlxLm`, and its vocabulary size, for the model in a folder.

    Raises:
        InputNotFoundError: there is no config.json. DataError: it is damaged.
        NotAllowedError: it wants to run code of its own.
        ConfigError: its weights are quantised, or it has fewer tokens than the tokenizer's `vocab_size`.
    """
    if folder.suffix == ".gguf":
        raise ConfigError(f"{title}: expected a folder for model=mlx_lm, got a GGUF file")
    # Resolved: the files of a downloaded snapshot are symbolic links.
    file = (folder / "config.json").resolve()
    config = read_json(file, dict[str, object])
    refuse_code(config, str(file))
    if any(isinstance(value, dict) and "_target_" in value for _, value in walk(config)):
        raise NotAllowedError(f"{file}: asks to build an object (_target_)")
    if any(key in config for key in QUANTIZED):
        raise ConfigError(
            f"{title}: its weights are quantised; expected the model in full precision"
        )
    size = text_value(config, VOCABULARY)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise DataError(f"{file}: {VOCABULARY} is {size}, expected a whole number >= 1")
    if vocab_size > size:
        raise ConfigError(f"{title}: has {size} tokens, fewer than the tokenizer's {vocab_size}")
    return {"config": config, VOCABULARY: size}


def load_published_weights(backbone: MlxLm, arrays: dict[str, mx.array], title: str) -> None:
    """Loads the arrays of a folder in float32; DataError if weights are missing, misshapen or unknown."""
    try:
        renamed: dict[str, mx.array] = dict(backbone.sanitize(arrays))
    except Exception as error:  # code of others, on arrays of a stranger
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"{title}: its weights are not those of its architecture ({reason})"
        ) from None
    parameters = named_parameters(backbone.model)
    faults = misfits(renamed, parameters)
    if backbone.returns_logits:  # A classifier has no output layer.
        faults += [f"{name} is unknown" for name in renamed if name not in parameters]
    if faults:
        raise DataError(f"{title}: {some(faults)}")
    weights = {name: as_float(renamed[name]) for name in parameters}
    evaluate_finite(weights, title)
    backbone.model.load_weights(list(weights.items()))


def as_float(array: mx.array) -> mx.array:
    """Floating-point numbers in float32, laid out as a resumed run reads them; other arrays as they are."""
    if mx.issubdtype(array.dtype, mx.floating):
        array = array.astype(mx.float32)
    return mx.contiguous(array)


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
