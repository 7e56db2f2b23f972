"""AdamW in one native kernel changes weights, moments and averages as MLX's optimizer does, or leaves all to it."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_map, tree_unflatten

from mlxlab.training.optim.optimizers import EMAOptimizer, adamw, flatten_arrays, lion
from mlxlab.training.steps.step import apply_adamw, apply_if_finite
from support.models import assert_close, assert_same, make_model, weights_of

SCALE = 0.5  # of the gradients
NONFINITE = 1  # the number of the step that is skipped
GROUPS = [
    {"pattern": "hidden*", "lr_scale": 0.1, "weight_decay": 0.3},
    {"pattern": "out.bias", "weight_decay": 0.2},
]
# Of the largest element of an array. MLX computes 1 - 0.99^t in float32, with a relative error of 3e-6 at t = 1.
TOLERANCE = 2e-6


def subject(*, average: bool = False, frozen: bool = False, groups: bool = False):
    """A model and the optimizer of its trainable weights."""
    mx.random.seed(0)
    model = make_model()
    if frozen:
        model.embedding.freeze()
    weights = flatten_arrays(model.trainable_parameters())
    untrained = flatten_arrays(model.parameters()).keys() - weights.keys()
    options = {"groups": GROUPS} if groups else {}
    optimizer = adamw(
        0.1, [0.9, 0.99], 1e-8, learning_rate=0.1, parameters=weights, frozen=untrained, **options
    )
    optimizer = EMAOptimizer(optimizer, 0.9) if average else optimizer
    optimizer.init(model.trainable_parameters())
    return model, optimizer


def native_update(model, optimizer, gradients, finite):
    assert apply_adamw(model, optimizer, gradients, mx.array(SCALE), finite)


def mlx_update(model, optimizer, gradients, finite):
    scaled = {path: gradient * SCALE for path, gradient in flatten_arrays(gradients).items()}
    apply_if_finite(finite, model, optimizer, tree_unflatten(list(scaled.items())))


def after_steps(update, *, compiled: bool = False, **options):
    """Weights and optimizer state after four steps with different learning rates, of which one has a NaN gradient."""
    model, optimizer = subject(**options)
    state = [model.state, optimizer.state]

    def step(gradients, finite):
        update(model, optimizer, gradients, finite)

    step = mx.compile(step, inputs=state, outputs=state) if compiled else step
    shapes = {
        path: weight.shape for path, weight in flatten_arrays(model.trainable_parameters()).items()
    }
    for number in range(4):
        keys = mx.random.split(mx.random.key(number), len(shapes))
        gradients = {
            path: mx.random.normal(shapes[path], key=key)
            for path, key in zip(shapes, keys, strict=True)
        }
        if number == NONFINITE:
            gradients["hidden.bias"] = gradients["hidden.bias"] * mx.array(float("nan"))
        optimizer.learning_rate = 0.1 / (1 + number)
        step(tree_unflatten(list(gradients.items())), mx.array(number != NONFINITE))
        mx.eval(state)
    return weights_of(model) | {
        f"state.{path}": np.array(x) for path, x in flatten_arrays(optimizer.state).items()
    }


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for path, array in expected.items():
        largest = np.abs(array).max(initial=0)
        np.testing.assert_allclose(
            actual[path], array, rtol=0, atol=TOLERANCE * largest, err_msg=path
        )


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("groups", [False, True])
def test_steps_change_what_the_optimizer_of_mlx_changes(average, frozen, groups):
    options = {"average": average, "frozen": frozen, "groups": groups}
    native = after_steps(native_update, **options)
    assert_close(native, after_steps(mlx_update, **options))
    compiled = after_steps(native_update, compiled=True, **options)
    assert_same(compiled, native)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_skipped_step_changes_nothing_and_arrays_of_others_are_not_overwritten(compiled):
    model, optimizer = subject(average=True, groups=True)
    optimizer.learning_rate = 0.05
    trees = [model.state, optimizer.state]
    held = flatten_arrays(trees)
    copies = {path: np.array(x) for path, x in flatten_arrays(trees).items()}

    def step(finite):
        native_update(model, optimizer, model.trainable_parameters(), finite)

    step = mx.compile(step, inputs=trees, outputs=trees) if compiled else step
    step(mx.array(False))
    assert_same(flatten_arrays(trees), copies)
    step(mx.array(True))
    mx.eval(trees)
    assert_same(held, copies)


def uncorrected(model):
    return optim.AdamW(0.1, betas=[0.9, 0.99], bias_correction=False)


def of_two_constants(model):
    parts = [optim.AdamW(0.1, betas=[0.9, beta], bias_correction=True) for beta in (0.99, 0.999)]
    return optim.MultiOptimizer(parts, [lambda path, weight: "hidden" in path])


def with_lion(model):
    return lion(
        0.1, [0.9, 0.99], learning_rate=0.1, parameters=flatten_arrays(model.trainable_parameters())
    )


def in_bfloat16(model):
    model.out.set_dtype(mx.bfloat16)
    return adamw(0.1, [0.9, 0.99], 1e-8, learning_rate=0.1)


def without_elements(model):
    model.out.empty = mx.zeros((0, 2))
    return adamw(0.1, [0.9, 0.99], 1e-8, learning_rate=0.1)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    "new", [uncorrected, of_two_constants, with_lion, in_bfloat16, without_elements]
)
@pytest.mark.parametrize("average", [False, True])
def test_what_the_kernel_does_not_compute_is_left_to_mlx(new, average):
    model, _ = subject()
    optimizer = new(model)
    optimizer = EMAOptimizer(optimizer, 0.9) if average else optimizer
    optimizer.init(model.trainable_parameters())
    assert_left_unchanged(model, optimizer)


@pytest.mark.usefixtures("native")
def test_gradients_in_bfloat16_and_an_optimizer_without_moments_are_left_to_mlx():
    model, optimizer = subject()
    assert_left_unchanged(model, optimizer, mx.bfloat16)
    assert_left_unchanged(model, adamw(0.1, [0.9, 0.99], 1e-8, learning_rate=0.1))
    assert apply_adamw(
        model, optimizer, model.trainable_parameters(), mx.array(1.0), mx.array(True)
    )


def assert_left_unchanged(model, optimizer, dtype=mx.float32):
    before = flatten_arrays([model.state, optimizer.state])
    gradients = tree_map(lambda weight: weight.astype(dtype), model.trainable_parameters())
    assert not apply_adamw(model, optimizer, gradients, mx.array(1.0), mx.array(True))
    after = flatten_arrays([model.state, optimizer.state])
    assert [(path, id(array)) for path, array in after.items()] == [
        (path, id(array)) for path, array in before.items()
    ]
