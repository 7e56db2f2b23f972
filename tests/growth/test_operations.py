"""Operations on random small models: outputs stay what they were, and everything new is trained."""

from itertools import product

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.errors import ConfigError
from mlxlab.growth.operations.changes import CHANGES
from mlxlab.models.layers import named_parameters
from support.growth import apply, batch, draw_model, draw_operation, new_model, randomize

EXACT = ("stack", "widen", "add_heads", "grow_width", "resize_vocabulary", "set_lora")
REFUSED = (("set_lora", "add_heads"), ("set_lora", "grow_width"))
PAIRS = list(product(EXACT, EXACT))


def outputs(model, inputs, count=None):
    return np.array(model(*inputs))[..., :count]


def check(seed, names):
    """Applies the operations, comparing the outputs after each; returns the last model, and its inputs."""
    rng = np.random.default_rng(seed)
    architecture, task = draw_model(rng, rms_norm="grow_width" in names)
    model = new_model(architecture, task, seed)
    randomize(model, seed)
    inputs = batch(rng)
    columns = 23 if task["kind"] == "language_modelling" else None
    before = outputs(model, inputs, columns)
    for name in names:
        operation = draw_operation(rng, architecture, name)
        model, architecture = apply(model, operation, architecture, task, seed)
        np.testing.assert_allclose(outputs(model, inputs, columns), before, atol=1e-4, err_msg=f"{architecture} {name}")
    return model, inputs


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", EXACT)
def test_an_operation_preserves_the_outputs(seed, name):
    check(seed, [name])


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_operations_preserve_the_outputs(pair):
    if pair in REFUSED:
        with pytest.raises(ConfigError, match="without adapter"):
            check(0, pair)
    else:
        check(sum(map(ord, "".join(pair))), pair)


@pytest.mark.fault_injection
@pytest.mark.parametrize("seed", range(400))
def test_operations_preserve_the_outputs_of_many_models(seed):
    names = [EXACT[i] for i in np.random.default_rng(seed).integers(0, len(EXACT), 3)]
    if not any(names.index(first) < names.index(second) for first, second in REFUSED if {first, second} <= {*names}):
        check(seed, names)


@pytest.mark.parametrize("name", ["stack", "widen", "add_heads", "grow_width", "resize_vocabulary"])
def test_all_that_is_new_is_trained_after_two_steps(name):
    model, inputs = check(3, [name])
    optimizer = optim.SGD(0.1)
    start = named_parameters(model)
    shape = model(*inputs).shape
    weights = mx.array(np.random.default_rng(1).normal(size=shape).astype(np.float32))

    def loss(model):
        return (model(*inputs) * weights).sum()

    moved = dict.fromkeys(start, False)
    for _ in range(2):
        _, gradients = nn.value_and_grad(model, loss)(model)
        for path, leaf in tree_flatten(gradients):
            moved[path] = moved[path] or bool(mx.abs(leaf).max().item() > 0)
        optimizer.update(model, gradients)
    unused = ("pooler", "type_embedding")
    assert [path for path, has_moved in moved.items() if not has_moved and not any(u in path for u in unused)] == []


def test_every_operation_is_checked():
    in_other_files = {"grow_vocabulary"}
    assert {*EXACT, "merge_lora", "freeze", "unfreeze"} | in_other_files == CHANGES.keys()
