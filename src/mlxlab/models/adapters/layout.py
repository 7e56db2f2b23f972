"""How the weights of a model are stored: one of a `model` node, or a published one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from mlxlab.checkpoint.transfer import Layout
from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, read_json, validate
from mlxlab.models.options import split_node


class Codes(TypedDict, total=False):
    """How weights are quantised, in the config.json of a published model."""

    group_size: Literal[16, 32, 64, 128]
    bits: Literal[2, 3, 4, 5, 6, 8]
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"]


def layout_of(node: Mapping[str, Any]) -> Layout:
    """The layout of the arrays of the model of a `model` node."""
    options = split_node(node)[0]
    scale = 1.0 if options.adapter is None else options.adapter.alpha / options.adapter.rank
    codes = options.quantization
    return Layout(scale, codes.group_size, codes.bits or Layout.bits, codes.mode)


def published_layout(folder: Path) -> Layout:
    """The layout of a published model: `quantization` in its config.json, as mlx-lm writes it.

    It holds the options of all layers, and by the name of a layer others. DataError if it is damaged.
    """
    file = (
        folder / "config.json"
    ).resolve()  # the files of a downloaded snapshot are symbolic links
    if not file.is_file():
        return Layout()
    try:
        content = read_json(file, dict[str, object], keys=["quantization"])
        saved = validate(content.get("quantization") or {}, dict[str, object])
        layers = {
            name: _read_codes(value, name)
            for name, value in saved.items()
            if isinstance(value, dict)
        }
        return replace(_read_codes(saved), exceptions=layers)
    except ShapeError as error:
        raise DataError(f"{file}: quantization: {error}") from None


def _read_codes(saved: Mapping[str, object], path: str = "") -> Layout:
    known = {key: value for key, value in saved.items() if key in Codes.__annotations__}
    codes: Codes = validate(known, Codes, path)
    return Layout(**codes)
