"""Where in a model a weight lies, by its path."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def depths(paths: Iterable[str]) -> dict[str, int]:
    """n for the weights of layer n, -1 for embeddings and their norm; heads, poolers and last norms are not in it."""
    paths = list(paths)
    layers = {path: int(match[1]) for path in paths if (match := _LAYER.search(path))}
    lowest = [path for path in paths if path not in layers and "embedding" in path]
    # The norm next to BERT's type embedding is that of the embeddings; a decoder's is its last one.
    owners = [path.removesuffix("type_embedding.weight") for path in lowest if path.endswith("type_embedding.weight")]
    lowest += [path for path in paths for owner in owners if path.startswith(f"{owner}norm.")]
    return layers | dict.fromkeys(lowest, -1)
