"""The shape of a model as options: a size by its name where there is one, else the four numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mlxlab.cli.translate.flags import Values, count_of

SIZES: Mapping[tuple[int, int, int, int], str] = MappingProxyType({  # those of conf/model/size
    (128, 6, 4, 512): "nano",
    (256, 8, 8, 1024): "tiny",
    (512, 12, 8, 2048): "small",
    (768, 12, 12, 3072): "medium",
    (1024, 24, 16, 4096): "large",
    (1280, 32, 20, 5120): "xlarge",
})  # fmt: skip
KEYS = ("model.hidden_size", "model.num_layers", "model.num_heads", "model.intermediate_size")


@dataclass(frozen=True)
class ShapeFlags:
    """The flags of a shape, each with its old default; any of them sets all four numbers.

    Args:
        width: of the states.
        layers: blocks.
        heads: of the attention.
        feed_forward: its hidden dimensions; without a default four times the width.
        preset: the flag that the old program preferred to these; "" for none.
    """

    width: tuple[str, int]
    layers: tuple[str, int]
    heads: tuple[str, int]
    feed_forward: tuple[str, int | None]
    preset: str = ""

    def __call__(self, value: str, values: Values) -> list[str]:
        if self.preset in values:
            return []
        width, layers, heads = (
            count_of(values, *flag) for flag in (self.width, self.layers, self.heads)
        )
        name, default = self.feed_forward
        shape = (width, layers, heads, count_of(values, name, default or 4 * width))
        if shape in SIZES:
            return [f"model/size={SIZES[shape]}"]
        return [
            "model/size=none",
            *(f"{key}={number}" for key, number in zip(KEYS, shape, strict=True)),
        ]
