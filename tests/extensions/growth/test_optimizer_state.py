"""The optimizer state of a changed model: counts of parameters, counted by hand, and statistics of its gradients."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.extensions.growth.grow import Training
from support.growth import SIZES, TARGETS, new_case, new_model

# Two layers of 7 matrices and 2 norms each, embedding, last norm and output layer: 21 parameters.
DECODER = {"_target_": TARGETS["transformer"], **SIZES, "norm_type": "rms", "tie_embeddings": False}
STACK = {"op": "stack", "map": [0, 1, 1]}
EQUAL = [
    {"op": "widen", "feed_forward": 20},
    {"op": "add_heads", "heads": 4},
    {"op": "resize_vocabulary", "size": 30},
    {"op": "resize_vocabulary", "size": 20},
]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_counts_are_those_of_the_parameters(optimizer):
    case = new_case(DECODER, "language_modelling", optimizer)
    lora = {"op": "set_lora", "rank": 2}
    for operation, expected in [  # one after the other: parameters carried over, fresh and dropped
        ({"op": "stack", "map": [0, 0, 1], "preserve": False}, (30, 0, 0)),
        ({"op": "stack", "map": [0, 2], "preserve": False}, (21, 0, 9)),
        (lora, (0, 28, 21)),
        (lora, (0, 28, 28)),
        ({"op": "merge_lora"}, (0, 21, 28)),
    ]:
        case, counts = case.grow({"id": "x", "when": {}, **operation})
        assert counts == expected, operation


def gradients(case):
    """Those of a weighted sum of the outputs."""
    model = new_model(case.training.architecture, case.task)
    model.load_weights(list(case.training.weights.items()))
    shape = case.outputs(evaluated=True).shape
    weights = mx.array(np.random.default_rng(0).normal(size=(*shape[:-1], 20)).astype(np.float32))

    def loss(model):
        outputs = model(mx.array(case.view.tokens), mx.array(case.view.segment_ids))
        return (outputs[..., mx.array(case.view.columns[:20])] * weights).sum()

    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


@pytest.mark.parametrize(
    "operation",
    [*EQUAL, {"op": "grow_width", "hidden_size": 20}, STACK],
    ids=lambda operation: operation["op"],
)
def test_statistics_that_are_carried_over_are_those_of_the_gradients_of_the_new_model(operation):
    case = new_case(DECODER, "language_modelling")
    state = dict(case.training.optimizer)
    for path, gradient in gradients(case).items():
        for name, statistic in (("m", gradient), ("v", gradient**2)):
            [leaf] = [leaf for leaf in state if leaf.endswith(f".{path}.{name}")]
            state[leaf] = statistic
    training = case.training
    case = replace(case, training=Training(training.architecture, training.weights, state))
    grown, _ = case.grow({"id": "x", "when": {}, **operation})
    for path, gradient in gradients(grown).items():
        if ".layers.2." in path:  # A copy has the statistics of its source, not yet its gradients.
            continue
        for name, expected in (("m", gradient), ("v", gradient**2)):
            [leaf] = [leaf for leaf in grown.training.optimizer if leaf.endswith(f".{path}.{name}")]
            statistic = grown.training.optimizer[leaf]
            tolerance = 1e-4 * float(mx.abs(expected).max())
            is_new = statistic == 0
            known = mx.where(is_new, expected, statistic)
            np.testing.assert_allclose(known, expected, rtol=1e-3, atol=tolerance)
            assert (~is_new).sum().item() >= min((state[leaf] != 0).sum().item(), statistic.size)
