"""Initial weights of a run with another vocabulary of the same tokenizer."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.data.vocabulary.vocabulary_map import VocabularyLimit, VocabularyMap
from mlxlab.experiment.initial_weights import change_vocabulary

FEW = VocabularyMap(np.array([0, 1, 4, 6]), 9, "t", VocabularyLimit(4, None))
MORE = VocabularyMap(np.array([0, 1, 3, 4, 7]), 9, "t", VocabularyLimit(5, None))


@pytest.mark.parametrize("old", [None, FEW, MORE])
@pytest.mark.parametrize("new", [None, FEW, MORE])
def test_every_row_stays_with_its_token(old, new):
    size = old.size if old else 9
    table = mx.arange(10.0, 10.0 + size)[:, None] * mx.ones((1, 2))
    other = mx.ones((3,))
    arrays = {
        "backbone.embedding.weight": table,
        "head.out.weight": table + 1,
        "backbone.norm.weight": other,
    }
    result = change_vocabulary(arrays, old, new)
    assert result["backbone.norm.weight"] is other
    rows = np.array(result["backbone.embedding.weight"])[:, 0]
    assert len(rows) == (new.size if new else 9)
    before = old.forward if old else np.arange(9)
    after = new.forward if new else np.arange(9)
    core = [token for token in range(9) if (new is None or new.is_core[token])]
    np.testing.assert_allclose(rows[after[core]], 10 + before[core])
    np.testing.assert_allclose(np.array(result["head.out.weight"])[:, 0], rows + 1, rtol=1e-6)
    if new is not None and new is not old:
        rare = np.flatnonzero(~new.is_core)
        assert rows[new.rare_id] == pytest.approx((10 + before[rare]).mean())
