"""Groups of weights have a learning rate and a decay of their own, whatever the optimizer."""

import re

import mlx.core as mx
import pytest
from benchmarks.config import read_config
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError

NAMES = ["adamw", "adafactor", "lion", "sgd", "muon"]
WEIGHTS = {
    "backbone.embedding.weight": mx.ones((5, 4)),
    "backbone.layers.0.up.weight": mx.ones((4, 4)),
    "backbone.layers.0.up.bias": mx.ones((4,)),
    "backbone.layers.1.up.weight": mx.ones((4, 4)),
    "head.out.weight": mx.ones((2, 4)),
}


def moved(name: str, gradient: float = 1.0, trained=WEIGHTS, frozen=(), **options: object):
    """How far one step at the rate 0.1 moves the weights, by path."""
    node = read_config(f"trainer/optimizer/{name}") | {"weight_decay": 0.0} | options
    optimizer = instantiate(node)(learning_rate=0.0, parameters=trained, frozen=frozen)
    tree = tree_unflatten(list(trained.items()))
    optimizer.init(tree)
    optimizer.learning_rate = 0.1  # as the loop does
    gradients = tree_map(lambda leaf: gradient * mx.ones_like(leaf), tree)
    after = dict(tree_flatten(optimizer.apply_gradients(gradients, tree)))
    return {path: float(mx.abs(after[path] - weight).max()) for path, weight in trained.items()}


GROUPS = [
    {"pattern": "layers.1.*", "lr_scale": 0.5},
    {"pattern": "backbone.layers", "lr_scale": 0.25},
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "embedding"), [({"groups": GROUPS}, 1), ({"layer_decay": 0.5}, 0.125)]
)
def test_a_group_or_a_layer_scales_the_rate_of_the_loop(name, options, embedding):
    alone, scaled = moved(name), moved(name, **options)
    scales = [scaled[path] / alone[path] for path in WEIGHTS]
    assert scales == pytest.approx([embedding, 0.25, 0.25, 0.5, 1], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_decay_of_a_group_is_that_of_all_its_weights(name):
    groups = [
        {"pattern": "*.layers.0.*", "weight_decay": 0.5},
        {"pattern": "head*", "weight_decay": 0.0},
    ]
    distances = moved(name, gradient=0.0, weight_decay=0.25, groups=groups)
    layer = distances["backbone.layers.1.up.weight"]
    assert layer > 0
    assert distances["backbone.layers.0.up.weight"] == distances["backbone.layers.0.up.bias"]
    assert distances["backbone.layers.0.up.bias"] == pytest.approx(2 * layer, rel=1e-4)
    assert distances["head.out.weight"] == distances["backbone.embedding.weight"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"groups": [{"pattern": "head.out.weigth", "lr_scale": 2}]},
            "groups.0.pattern: head.out.weigth matches nothing",
        ),
        ({"layer_decay": 0.5}, "layer_decay=0.5: the model has no layers"),
    ],
)
def test_options_that_fit_no_weight_are_refused(options, message):
    head = {"head.out.weight": WEIGHTS["head.out.weight"]}
    with pytest.raises(ConfigError, match=rf"^trainer\.optimizer\.{re.escape(message)}"):
        moved("adamw", trained=head, **options)


@pytest.mark.parametrize(
    "options", [{"groups": [{"pattern": "layers.1", "lr_scale": 0.5}]}, {"layer_decay": 0.5}]
)
def test_frozen_weights_count_for_patterns_and_depth(options):
    trained = {path: weight for path, weight in WEIGHTS.items() if "layers.1" not in path}
    rates = moved("sgd", momentum=0.0, **options)
    some = moved("sgd", momentum=0.0, trained=trained, frozen=WEIGHTS.keys() - trained, **options)
    assert some == {path: rates[path] for path in trained}
    assert rates["backbone.layers.1.up.weight"] == pytest.approx(0.05)
