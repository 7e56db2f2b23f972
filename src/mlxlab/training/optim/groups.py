"""Groups of weights with a learning rate and a weight decay of their own, for every optimizer.

Norms, biases and embeddings are not decayed, unless a group names a decay for them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, NamedTuple, NotRequired, TypedDict

import mlx.core as mx
import mlx.optimizers as optim

from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.constraints import Gt, Le, NonNegative, Positive
from mlxlab.errors import ConfigError

LearningRate = float | Callable[[mx.array], mx.array]
NewOptimizer = Callable[[LearningRate, float], optim.Optimizer]  # (learning rate, weight decay) -> optimizer
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class ParameterGroup(TypedDict):
    """Weights with hyperparameters of their own.

    Args:
        pattern: their paths, with * for any characters; the first group that matches a weight counts.
        lr_scale: multiple of the learning rate of the schedule.
        weight_decay: of all of them, also of norms, biases and embeddings.
    """

    pattern: str
    lr_scale: NotRequired[Positive]
    weight_decay: NotRequired[NonNegative]


class GroupOptions(TypedDict):
    """Options of every optimizer.

    Args:
        groups: weights with a learning rate or decay of their own, as in `[{pattern: "head.*", lr_scale: 10}]`.
        layer_decay: factor of the learning rate from each layer to the one below it, down to the embeddings (Clark et
            al. 2020); 1 for the same everywhere, 0.8 to 0.9 where a pretrained encoder is fine-tuned.
    """

    groups: NotRequired[list[ParameterGroup]]
    layer_decay: NotRequired[Annotated[float, Gt(0), Le(1)]]


NO_GROUP = ParameterGroup(pattern="*")


class OptimizerKind(NamedTuple):
    """A kind of optimizer, and the weights that it trains: those that `takes` accepts and no kind before it."""

    takes: Callable[[str, mx.array], bool]
    new: NewOptimizer
    lr_scale: float = 1.0


class Hyperparameters(NamedTuple):
    """Weights with the same ones share an optimizer. `kind` is the index of theirs."""

    kind: int
    lr_scale: float
    weight_decay: float


def has_weight_decay(path: str, weight: mx.array) -> bool:
    return weight.ndim >= 2 and "embed" not in path


def grouped(
    kinds: Sequence[OptimizerKind],
    learning_rate: float,
    weight_decay: float,
    parameters: Mapping[str, mx.array],
    options: GroupOptions,
) -> optim.MultiOptimizer:
    """One optimizer for each set of hyperparameters. The loop sets the rate of the first, the others multiply it.

    Args:
        parameters: the weights that are trained, by path.

    Raises:
        ConfigError: the pattern of a group matches none of them, or layer_decay finds no layers.
    """
    groups, scales = options.get("groups", []), layer_scales(parameters, options.get("layer_decay", 1.0))
    for index, group in enumerate(groups):
        if not any(fnmatchcase(path, group["pattern"]) for path in parameters):
            hint = did_you_mean(nearest(group["pattern"], parameters))
            raise ConfigError(f"trainer.optimizer.groups.{index}.pattern={group['pattern']}: matches no weight{hint}")

    def hyperparameters(path: str, weight: mx.array) -> Hyperparameters:
        kind = next(index for index, each in enumerate(kinds) if each.takes(path, weight))
        group = next((group for group in groups if fnmatchcase(path, group["pattern"])), NO_GROUP)
        decay = group.get("weight_decay", weight_decay if has_weight_decay(path, weight) else 0.0)
        return Hyperparameters(kind, kinds[kind].lr_scale * scales.get(path, 1.0) * group.get("lr_scale", 1.0), decay)

    defaults = [Hyperparameters(0, 1.0, weight_decay)]
    defaults += [Hyperparameters(kind, each.lr_scale, weight_decay) for kind, each in enumerate(kinds) if kind]
    defaults.append(Hyperparameters(len(kinds) - 1, kinds[-1].lr_scale, 0.0))
    used = [hyperparameters(path, weight) for path, weight in parameters.items()]
    order = {each: index for index, each in enumerate(dict.fromkeys([*defaults, *used]))}
    first = kinds[0].new(learning_rate, weight_decay)
    others = [
        kinds[each.kind].new(_scaled(first, learning_rate, each.lr_scale), each.weight_decay)
        for each in list(order)[1:]
    ]
    filters = [
        lambda path, weight, index=index: order[hyperparameters(path, weight)] == index for index in range(len(others))
    ]
    return optim.MultiOptimizer([first, *others], filters)


def _scaled(first: optim.Optimizer, learning_rate: float, scale: float) -> LearningRate:
    """The rate that the loop sets, or a multiple of it, which MLX computes before every step."""
    return learning_rate if scale == 1.0 else lambda _: scale * first.learning_rate


def layer_scales(paths: Sequence[str] | Mapping[str, object], decay: float) -> dict[str, float]:
    """The factor of the learning rate of each weight; heads, poolers and last norms are not in it, theirs is 1.

    Of L layers the n-th, from 0, has decay^(L - n), the embeddings and their norm decay^(L + 1).
    """
    if decay == 1.0:
        return {}
    depths = {path: int(match[1]) for path in paths if (match := _LAYER.search(path))}
    if not depths:
        raise ConfigError(f"trainer.optimizer.layer_decay={decay}: the model has no layers that are trained")
    above = max(depths.values()) + 1
    lowest = [path for path in paths if path not in depths and "embedding" in path]
    # The norm next to BERT's type embedding is that of the embeddings; a decoder's is its last one.
    owners = [path.removesuffix("type_embedding.weight") for path in lowest if path.endswith("type_embedding.weight")]
    lowest += [path for path in paths for owner in owners if path.startswith(f"{owner}norm.")]
    scales = {path: decay ** (above - depth) for path, depth in depths.items()}
    return scales | dict.fromkeys(lowest, decay ** (above + 1))
