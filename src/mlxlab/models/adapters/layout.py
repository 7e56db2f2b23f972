"""How the model of a `model` node stores its weights."""

from collections.abc import Mapping
from typing import Any

from mlxlab.checkpoint.transfer import Layout
from mlxlab.models.options import split_node


def layout_of(node: Mapping[str, Any]) -> Layout:
    """The layout of the arrays of the model of a `model` node."""
    options = split_node(node)[0]
    scale = 1.0 if options.adapter is None else options.adapter.alpha / options.adapter.rank
    codes = options.quantization
    return Layout(scale, codes.group_size, codes.bits or Layout.bits, codes.mode)
