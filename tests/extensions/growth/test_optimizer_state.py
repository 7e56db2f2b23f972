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
# Two layers of 6 matrices with biases and 2 norms with biases each, three embeddings, their norm with bias, pooler and
# classifier with biases: 41 parameters.
ENCODER = {"_target_": TARGETS["bert"], **SIZES}
STACK = {"op": "stack", "map": [0, 1, 1]}
LORA, MERGE = {"op": "set_lora", "rank": 2}, {"op": "merge_lora"}
FREEZE, UNFREEZE = {"op": "freeze", "patterns": ["feed_forward.*"]}, {"op": "unfreeze"}
EQUAL = [
    {"op": "widen", "feed_forward": 20},
    {"op": "add_heads", "heads": 4},
    {"op": "resize_vocabulary", "size": 30},
    {"op": "resize_vocabulary", "size": 20},
]
# Operations one after the other, each with the parameters that are carried over, fresh and dropped.
DECODER_COUNTS = [
    *([(operation, (21, 0, 0))] for operation in EQUAL),
    [({"op": "grow_width", "hidden_size": 20}, (21, 0, 0))],
    [(STACK, (28, 2, 0)), ({"op": "stack", "map": [0, 0, 1, 1, 2]}, (44, 4, 0))],
    [({"op": "stack", "map": [0, 0, 1], "preserve": False}, (30, 0, 0))],
    [({"op": "stack", "map": [1], "preserve": False}, (12, 0, 9))],
    [(LORA, (0, 28, 21)), (LORA, (0, 28, 28)), (MERGE, (0, 21, 28))],
    [(LORA, (0, 28, 21)), (STACK, (40, 2, 0)), ({"op": "widen", "feed_forward": 20}, (42, 0, 0))],
    [
        (FREEZE, (15, 0, 6)),
        (FREEZE, (15, 0, 0)),
        (STACK, (20, 1, 0)),
        (UNFREEZE, (21, 9, 0)),
        (UNFREEZE, (30, 0, 0)),
    ],
]
ENCODER_COUNTS = [
    *([(operation, (41, 0, 0))] for operation in EQUAL),
    # A copy has a gate; a copy of a copy takes its place in a layer whose gate is carried over.
    [(STACK, (57, 1, 0)), ({"op": "stack", "map": [0, 1, 2, 2]}, (74, 1, 0))],
    [(LORA, (2, 24, 39)), ({**LORA, "rank": 3}, (2, 24, 24)), (MERGE, (2, 39, 24))],
    [(FREEZE, (33, 0, 8)), (UNFREEZE, (33, 8, 0))],
]


@pytest.mark.parametrize(
    ("node", "kind", "optimizer", "average"),
    [
        (DECODER, "language_modelling", "adamw", True),
        (DECODER, "language_modelling", "muon", False),
        (DECODER, "language_modelling", "adafactor", False),
        (ENCODER, "classification", "adamw", False),
        (ENCODER, "classification", "lion", False),
    ],
)
def test_the_counts_are_those_of_the_parameters(node, kind, optimizer, average):
    first = new_case(node, kind, optimizer, average=average)
    for sequence in DECODER_COUNTS if node == DECODER else ENCODER_COUNTS:
        case = first
        for operation, expected in sequence:
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
