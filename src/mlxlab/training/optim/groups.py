"""Groups of weights with a learning rate and a weight decay of their own, for every optimizer.

Norms, biases and embeddings are not decayed, unless a group names a decay for them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple, NotRequired, TypedDict

import mlx.core as mx
import mlx.optimizers as optim

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import depths, select_paths
from mlxlab.schema.constraints import Gt, Le, NonNegative, Positive

LearningRate = float | Callable[[mx.array], mx.array]
NewOptimizer = Callable[..., optim.Optimizer]  # (learning rate, weight_decay=) -> optimizer
KEY = "trainer.optimizer"


class ParameterGroup(TypedDict):
    """Weights with hyperparameters of their own.

    Args:
        pattern: as in `model.freeze`; the first group that matches a weight counts.
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


class OptimizerKind(NamedTuple):
    """A kind of optimizer, and the weights that it trains: those that `takes` accepts and no kind before it."""

    new: NewOptimizer
    takes: Callable[[str, mx.array], bool] = lambda path, weight: True
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
    frozen: Iterable[str],
    options: GroupOptions,
) -> optim.MultiOptimizer:
    """One optimizer for each set of hyperparameters. The loop sets the rate of the first, the others multiply it.

    Args:
        parameters: the weights that are trained, by path.
        frozen: paths of the others, which count for patterns and for the depth of layers.

    Raises:
        ConfigError: as of `groups_by_path` and `layer_scales`.
    """
    paths = [*parameters, *frozen]
    scales = layer_scales(paths, options.get("layer_decay", 1.0))
    groups = groups_by_path(paths, options.get("groups", []))

    def hyperparameters(path: str, weight: mx.array) -> Hyperparameters:
        kind = next(index for index, each in enumerate(kinds) if each.takes(path, weight))
        decay = 0.0
        if has_weight_decay(path, weight):
            decay = weight_decay
        scale = scales.get(path, 1.0)
        if path in groups:
            scale *= groups[path].get("lr_scale", 1.0)
            decay = groups[path].get("weight_decay", decay)
        return Hyperparameters(kind, kinds[kind].lr_scale * scale, decay)

    defaults = [
        Hyperparameters(kind, each.lr_scale, weight_decay) for kind, each in enumerate(kinds)
    ]
    defaults.append(defaults[-1]._replace(weight_decay=0.0))
    used = [hyperparameters(path, weight) for path, weight in parameters.items()]
    order = {each: index for index, each in enumerate(dict.fromkeys([*defaults, *used]))}
    first = kinds[0].new(learning_rate, weight_decay=weight_decay)
    others = [
        kinds[each.kind].new(
            _scaled(first, learning_rate, each.lr_scale), weight_decay=each.weight_decay
        )
        for each in list(order)[1:]
    ]
    filters = [
        lambda path, weight, index=index: order[hyperparameters(path, weight)] == index
        for index in range(len(others))
    ]
    return optim.MultiOptimizer([first, *others], filters)


def _scaled(first: optim.Optimizer, learning_rate: float, scale: float) -> LearningRate:
    """The rate that the loop sets, or a multiple of it, which MLX computes before every step."""
    if scale == 1.0:
        return learning_rate
    return lambda _: scale * first.learning_rate


def groups_by_path(
    paths: Sequence[str], groups: Sequence[ParameterGroup]
) -> dict[str, ParameterGroup]:
    """The first group of each weight that has one; ConfigError if the pattern of a group matches none of them."""
    chosen: dict[str, ParameterGroup] = {}
    for index, group in enumerate(groups):
        for path in select_paths(paths, [group["pattern"]], f"{KEY}.groups.{index}.pattern"):
            chosen.setdefault(path, group)
    return chosen


def layer_scales(paths: Sequence[str], decay: float) -> dict[str, float]:
    """The factor of the learning rate of each weight; heads, poolers and last norms are not in it, theirs is 1.

    ConfigError if there are no layers to decay.

    Of L layers the n-th, from 0, has decay^(L - n), the embeddings and their norm decay^(L + 1).
    """
    if decay == 1.0:
        return {}
    levels = depths(paths)
    above = max(levels.values(), default=-1) + 1
    if not above:
        raise ConfigError(f"{KEY}.layer_decay={decay}: the model has no layers")
    return {path: decay ** (above - level) for path, level in levels.items()}
