"""From a smaller vocabulary to all tokens: every row under the original id of its token."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.arrays import shapes
from mlxlab.data.vocabulary.vocabulary_map import VocabularyLimit, VocabularyMap
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.operations.changes import CHANGES
from mlxlab.extensions.growth.operations.grow_vocabulary import with_vocabulary
from mlxlab.extensions.growth.optimizer_state import WeightChange, transfer_optimizer
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from support.growth import SIZES, TARGETS, counts_of, new_model, randomize

OPERATION = {"id": "all", "op": "grow_vocabulary", "when": {}}
CHANGE = CHANGES["grow_vocabulary"]
KEPT = np.array([0, 1, 4, 5, 9, 17, 18])  # the rank of a token is not its place here
VOCABULARY = VocabularyMap(KEPT, 23, "", VocabularyLimit(len(KEPT), None))
NODES = {
    "tied": {"_target_": TARGETS["transformer"], **SIZES, "tie_embeddings": True},
    "untied": {"_target_": TARGETS["transformer"], **SIZES, "tie_embeddings": False},
    "masked": {"_target_": TARGETS["bert"], **SIZES},
    "hybrid": {
        "_target_": TARGETS["hybrid"],
        **SIZES,
        "num_filters": 8,
        "kernel_sizes": [2, 3],
        "dilations": [1],
    },
}
TASK = {"kind": "language_modelling"}


@pytest.mark.parametrize("kind", NODES)
def test_the_logits_of_kept_tokens_stay_under_their_original_ids(kind):
    before = Architecture(NODES[kind], VOCABULARY.size)
    small = new_model(before, TASK, seed=0)
    randomize(small, 1)
    operation = with_vocabulary(OPERATION, VOCABULARY)
    after = CHANGE.node(operation, before)
    assert after.vocab_size == 23
    arrays, _ = CHANGE.arrays(operation, before, dict(named_parameters(small)), seed=3)
    large = new_model(after, TASK)
    large.load_weights(list(arrays.items()))
    tokens = np.random.default_rng(0).integers(0, len(KEPT), (3, 9))
    ones = mx.ones(tokens.shape, mx.int32)
    old, new = small(mx.array(tokens), ones), large(mx.array(KEPT[tokens]), ones)
    np.testing.assert_allclose(np.array(new)[..., KEPT], np.array(old)[..., :-1], atol=1e-5)
    rare = np.setdiff1d(np.arange(23), KEPT)
    np.testing.assert_allclose(np.array(new)[..., rare] - np.array(old)[..., -1:], 0, atol=0.5)
    again, _ = CHANGE.arrays(operation, before, dict(named_parameters(small)), seed=3)
    assert all(bool((again[path] == array).all()) for path, array in arrays.items())


@pytest.mark.parametrize("kind", NODES)
def test_rows_of_weights_and_moments_are_those_of_the_map_and_new_ones_the_rare_row_with_noise(
    kind,
):
    before = Architecture(NODES[kind], VOCABULARY.size)
    weights = dict(named_parameters(new_model(before, TASK, seed=0)))
    operation = with_vocabulary({**OPERATION, "noise": 0.5}, VOCABULARY)
    arrays, sources = CHANGE.arrays(operation, before, weights, seed=3)
    tables = [path for path in weights if arrays[path].shape != weights[path].shape]
    assert len(tables) == (1 if kind == "tied" else 2)
    moments = {f"states.0.{path}.m": array + 1 for path, array in weights.items()}
    fresh = {f"states.0.{path}.m": mx.zeros(array.shape) for path, array in arrays.items()}
    weight_change = WeightChange(shapes(weights), sources)
    state, report = transfer_optimizer(
        moments, fresh, [weight_change], shapes(arrays), {}, by_shape=False
    )
    assert counts_of(report) == (len(weights), 0, 0)
    rare = np.setdiff1d(np.arange(23), KEPT)
    for path in tables:
        old, new, moment = (
            np.array(each) for each in (weights[path], arrays[path], state[f"states.0.{path}.m"])
        )
        for original, mapped in enumerate(VOCABULARY.forward):
            if mapped < VOCABULARY.rare_id:
                np.testing.assert_array_equal(new[original], old[mapped])
                np.testing.assert_array_equal(moment[original], old[mapped] + 1)
        assert not moment[rare].any()
        noise = new[rare] - old[VOCABULARY.rare_id]
        assert noise.std() == pytest.approx(0.5, rel=0.2) if old.ndim > 1 else not noise.any()


def test_a_model_of_other_ids_is_refused():
    operation = with_vocabulary(OPERATION, VOCABULARY)
    with pytest.raises(ConfigError, match="expected a model of 8 tokens, got 9"):
        CHANGE.node(operation, Architecture(NODES["tied"], 9))
    with pytest.raises(ConfigError, match=r"expected data.vocabulary.size or"):
        with_vocabulary(OPERATION, None)
