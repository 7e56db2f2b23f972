"""Published models for `MlxLm`: the config.json of a folder, and its weights by mlx-lm's own table of names."""

from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxlab.checkpoint.arrays import evaluate_finite, misfits
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.files.untrusted import read_json
from mlxlab.models.layers import named_parameters
from mlxlab.models.zoo.architectures import VOCABULARY, refuse_code, text_value
from mlxlab.models.zoo.mlx_lm import MlxLm
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.wording import some

QUANTIZED = ("quantization", "quantization_config")


def read_published_config(folder: Path, vocab_size: int, title: str) -> dict[str, Any]:
    """The arguments of `MlxLm`, and its vocabulary size, for the model in a folder.

    Raises:
        InputNotFoundError: there is no config.json. DataError: it is damaged.
        NotAllowedError: it wants to run code of its own.
        ConfigError: its weights are quantised, or it has fewer tokens than the tokenizer's `vocab_size`.
    """
    if folder.suffix == ".gguf":
        raise ConfigError(f"{title}: expected a folder for model=mlx_lm, got a GGUF file")
    file = (
        folder / "config.json"
    ).resolve()  # the files of a downloaded snapshot are symbolic links
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
    is_float = mx.issubdtype(array.dtype, mx.floating)
    return mx.contiguous(array.astype(mx.float32) if is_float else array)
