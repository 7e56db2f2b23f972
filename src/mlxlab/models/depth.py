"""Where in a model a weight lies, by its path."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def depths(paths: Iterable[str]) -> dict[str, int]:
    """n for the weights of layer n, -1 for embeddings and their norm; heads, poolers and last norms are not in it."""
    paths = list(paths)
    layers = {path: int(match[1]) for path in paths if (match := _LAYER.search(path))}
    return layers | dict.fromkeys(
        (path for path in paths if path not in layers and "embedding" in path), -1
    )
