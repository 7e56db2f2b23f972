"""Groups of weights have a learning rate and a decay of their own, whatever the optimizer."""

import mlx.core as mx
import pytest
from benchmarks.config import read_config
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError
from mlxlab.training.optim.groups import groups_by_path, layer_scales

NAMES = ["adamw", "adafactor", "lion", "sgd", "muon"]
WEIGHTS = {
    "backbone.embedding.weight": mx.ones((5, 4)),
    "backbone.layers.0.up.weight": mx.ones((4, 4)),
    "backbone.layers.0.up.bias": mx.ones((4,)),
    "backbone.layers.1.up.weight": mx.ones((4, 4)),
    "head.out.weight": mx.ones((2, 4)),
}


def moved(
    name: str, rate: float = 0.1, gradient: float = 1.0, **options: object
) -> dict[str, float]:
    """How far one step moves the weights, by path."""
    node = read_config(f"trainer/optimizer/{name}") | {"weight_decay": 0.0} | options
    optimizer = instantiate(node)(learning_rate=0.0, parameters=WEIGHTS)
    tree = tree_unflatten(list(WEIGHTS.items()))
    optimizer.init(tree)
    optimizer.learning_rate = rate  # as the loop does
    after = dict(
        tree_flatten(
            optimizer.apply_gradients(
                tree_map(lambda leaf: gradient * mx.ones_like(leaf), tree), tree
            )
        )
    )
    return {path: float(mx.abs(after[path] - weight).max()) for path, weight in WEIGHTS.items()}


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
    scales = {path: scaled[path] / alone[path] for path in WEIGHTS}
    assert scales == pytest.approx(
        {
            "backbone.embedding.weight": embedding,
            "backbone.layers.0.up.weight": 0.25,
            "backbone.layers.0.up.bias": 0.25,
            "backbone.layers.1.up.weight": 0.5,
            "head.out.weight": 1,
        },
        rel=1e-4,
    )


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


def test_the_norm_of_embeddings_is_as_low_as_they_are():
    encoder = (
        "backbone.type_embedding.weight",
        "backbone.embedding_norm.bias",
        "backbone.layers.0.norm.weight",
    )
    above = ("backbone.last_norm.weight", "backbone.pooler.weight")
    assert layer_scales([*encoder, *above], 0.5) == dict(
        zip(encoder, (0.25, 0.25, 0.5), strict=True)
    )
    assert layer_scales(["backbone.norm.weight", "backbone.layers.0.up"], 0.5) == {
        "backbone.layers.0.up": 0.5
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"groups": [{"pattern": "head.out.weigth", "lr_scale": 2}]},
            "trainer.optimizer.groups.0.pattern: head.out.weigth matches nothing",
        ),
        ({"layer_decay": 0.5}, "trainer.optimizer.layer_decay=0.5: the model has no layers"),
    ],
)
def test_options_that_fit_no_weight_are_refused(options, message):
    node = read_config("trainer/optimizer/adamw") | options
    with pytest.raises(ConfigError) as error:
        instantiate(node)(
            learning_rate=0.1, parameters={"head.out.weight": WEIGHTS["head.out.weight"]}
        )
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "options", [{"groups": [{"pattern": "layers.1", "lr_scale": 0.5}]}, {"layer_decay": 0.5}]
)
def test_frozen_weights_count_for_patterns_and_depth(options):
    trained = {path: weight for path, weight in WEIGHTS.items() if "layers.1" not in path}
    rates = rates_of(WEIGHTS, [], options)
    assert rates_of(trained, WEIGHTS.keys() - trained.keys(), options) == {
        path: rates[path] for path in trained
    }
    assert rates["backbone.layers.1.up.weight"] == 0.05


def rates_of(trained, frozen, options):
    """The learning rate of each weight, where that of the loop is 0.1."""
    node = read_config("trainer/optimizer/sgd") | {"weight_decay": 0.0, "momentum": 0.0} | options
    optimizer = instantiate(node)(learning_rate=0.1, parameters=trained, frozen=frozen)
    tree = tree_unflatten(list(trained.items()))
    optimizer.init(tree)
    after = optimizer.apply_gradients(tree_map(mx.ones_like, tree), tree)
    return {
        path: round(float((trained[path] - leaf).max()), 6) for path, leaf in tree_flatten(after)
    }


def test_a_pattern_selects_adapters_and_the_weights_below_them():
    paths = ("layers.0.query.base.weight", "layers.0.query.lora_a", "layers.1.query.weight")
    for pattern in ("layers.0", "query.lora_a", "layers.0.query.weight"):
        scaled = groups_by_path(paths, [{"pattern": pattern, "lr_scale": 2}])
        assert [*scaled] == {"layers.0": [*paths[:2]], "query.lora_a": [paths[1]]}.get(
            pattern, [paths[0]]
        )
