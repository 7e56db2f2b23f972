"""The parameters of a model by path: which a pattern chooses, in which layer they lie, and which are trained.

MLX marks frozen parameters, and gradients and optimizers leave them out. Patterns are `*.attention.query`,
`layers.[01].*` or `embedding`.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import combinations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.checkpoint.parameter_names import ADAPTER
from mlxlab.errors import ConfigError
from mlxlab.models.layers import named_parameters

FREEZE = "model.freeze"
MAX_EXAMPLES = 3  # existing paths in a message
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def trainable_names(module: nn.Module) -> list[str]:
    """The paths of the parameters that are trained."""
    return list(dict(tree_flatten(module.trainable_parameters())))


def frozen_parameters(module: nn.Module) -> dict[str, mx.array]:
    """The parameters that are not trained, by path."""
    trained = set(trainable_names(module))
    return {path: leaf for path, leaf in named_parameters(module).items() if path not in trained}


def make_contiguous(module: nn.Module) -> None:
    """Lays frozen weights out as a resumed run reads them: a product is rounded by how a weight lies in memory."""
    arrays = {path: mx.contiguous(leaf) for path, leaf in frozen_parameters(module).items()}
    if arrays:
        mx.eval(arrays)
        module.update(tree_unflatten(list(arrays.items())))


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Freezes the parameters that match, in addition to those that are frozen.

    A parameter below `layer.base` also has the path that it has without an adapter, below `layer`. The adapter itself
    stays trained, unless the pattern matches adapters only.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left to train.
    """
    adapters = set(adapter_paths(named_parameters(module)))
    names = []
    for pattern in patterns:
        matches = select_parameters(module, [pattern], FREEZE)
        names += [name for name in matches if name not in adapters] or matches
    for owner, parameter in _owners(module, names):
        owner.freeze(recurse=False, keys=[parameter])
    if not trainable_names(module):
        raise ConfigError(f"{FREEZE}: nothing is left to train")


def train_only(module: nn.Module, names: Iterable[str]) -> None:
    """Freezes everything but the named parameters."""
    module.freeze()
    for owner, parameter in _owners(module, names):
        owner.unfreeze(recurse=False, keys=[parameter])


def select_parameters(module: nn.Module, patterns: Sequence[str], key: str) -> list[str]:
    """The parameters that match, as in `select_paths`."""
    return select_paths(named_parameters(module), patterns, key)


def select_paths(paths: Iterable[str], patterns: Sequence[str], key: str) -> list[str]:
    """The paths of parameters that match, as in `select`, with or without the `base` of an adapter in them."""
    plain = {path: path.replace(".base.", ".") for path in paths}
    chosen = set(select(patterns, dict.fromkeys([*plain.values(), *plain]), key))
    return [path for path, name in plain.items() if path in chosen or name in chosen]


def _owners(module: nn.Module, names: Iterable[str]) -> Iterable[tuple[nn.Module, str]]:
    """The module that each parameter belongs to, and its name in it (that of the list, for arrays in a list)."""
    modules = dict(module.named_modules())
    for name in names:
        parts = name.split(".")
        count = next(
            count for count in range(len(parts) - 1, -1, -1) if ".".join(parts[:count]) in modules
        )
        yield modules[".".join(parts[:count])], parts[count]


def adapted_layers(paths: Iterable[str]) -> list[str]:
    """The paths of the layers that have an adapter."""
    return [path.removesuffix(".lora_a") for path in paths if path.endswith(".lora_a")]


def adapter_paths(paths: Iterable[str]) -> list[str]:
    """Selects the paths that belong to an adapter."""
    paths = list(paths)
    layers = set(adapted_layers(paths))
    return [
        path
        for path in paths
        if path.rpartition(".")[0] in layers and path.rpartition(".")[2] in ADAPTER
    ]


def select(patterns: Sequence[str], paths: Iterable[str], key: str) -> list[str]:
    """The paths, in their order, that a pattern matches; those inside of a module whose path it matches too.

    A pattern matches a whole path or the last parts of it.

    Raises:
        ConfigError: a pattern matches nothing; `key` is where it is configured.
    """
    paths = list(paths)
    chosen: set[str] = set()
    unmatched = []
    for pattern in patterns:
        matching = [path for path in paths if _matches(pattern, path)]
        chosen.update(matching)
        if not matching:
            unmatched.append(pattern)
    if unmatched:
        expected = f"expected patterns of paths such as {', '.join(paths[:MAX_EXAMPLES])}"
        raise ConfigError(f"{key}: {', '.join(unmatched)} matches nothing; {expected}")
    return [path for path in paths if path in chosen]


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches the end of a path, or of the path of a module that it lies in."""
    parts = path.split(".")
    bounds = combinations(range(len(parts) + 1), 2)
    return any(fnmatchcase(".".join(parts[start:end]), pattern) for start, end in bounds)


def depths(paths: Iterable[str]) -> dict[str, int]:
    """n for the weights of layer n, -1 for embeddings and their norm; heads, poolers and last norms are not in it."""
    paths = list(paths)
    layers = {path: int(match[1]) for path in paths if (match := _LAYER.search(path))}
    return layers | dict.fromkeys(
        (path for path in paths if path not in layers and "embedding" in path), -1
    )
