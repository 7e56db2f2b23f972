"""Stacking a model whose config has patterns of layers."""

import pytest

from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.operations.changes import CHANGES
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from support.growth import SIZES, TARGETS, new_model

LAYER = "backbone.layers"
TASK = {"kind": "classification", "num_classes": 2}


def stack(layers, **options):
    before = Architecture({"_target_": TARGETS["transformer"], **SIZES, **options}, 23)
    operation = {"id": "deeper", "op": "stack", "map": layers, "when": {}}
    return CHANGES["stack"].arrays(operation, before, named_parameters(new_model(before, TASK)), 0)[
        0
    ]


@pytest.mark.parametrize(
    ("pattern", "layers", "other"),
    [
        ("layers.0.*", [0, 0, 1], 1),
        ("layers.1", [0, 0, 1], 1),
        (r"re:.*\.layers\.(0|3)\..*", [0, 0, 1], 1),
        ("*.1.feed_forward.up", [0, 1, 1], 2),
    ],
)
def test_a_pattern_that_would_select_other_layers_is_refused(pattern, layers, other):
    adapter = {"_target_": "mlxlab.models.options.LoRA", "targets": [pattern]}
    for options in ({"freeze": [pattern]}, {"adapter": adapter}):
        with pytest.raises(ConfigError) as error:
            stack(layers, **options)
        assert (
            f"the pattern {pattern} of the model would select only one of {LAYER}.{other}"
            in str(error.value)
        )


@pytest.mark.parametrize(
    "pattern", ["layers.0.*", "layers.*", r"re:backbone\.layers\.[0-9]+\.attention", "embedding"]
)
def test_a_pattern_that_selects_the_copies_of_its_layers_is_not(pattern):
    assert "backbone.layers.2.attention.query.weight" in stack([0, 1, 1], freeze=[pattern])
