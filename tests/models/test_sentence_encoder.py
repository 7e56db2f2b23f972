"""Vectors of a real encoder: near for texts of one meaning, the same in any batch and after a save."""

import json

import numpy as np
import pytest

from mlxlab.errors import InputNotFoundError
from mlxlab.models.pretrained import load
from mlxlab.models.pretrained.load import resolve
from mlxlab.models.sentence_encoder import SentenceEncoder

TEXTS = [
    "The cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "Interest rates were raised by a quarter of a per cent.",
    "",
    "word " * 100,
]


@pytest.fixture(scope="module")
def encoder():
    try:
        return SentenceEncoder(resolve("minilm"))
    except InputNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def vectors(encoder):
    return encoder(TEXTS)


def test_texts_of_one_meaning_are_near(vectors):
    assert vectors.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[1] > 0.6
    assert vectors[0] @ vectors[2] < 0.2


def test_a_vector_does_not_depend_on_the_other_texts(encoder, vectors):
    alone = np.concatenate([encoder([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, vectors, atol=1e-5)


def test_a_saved_encoder_has_the_same_vectors_in_half_of_the_bytes(encoder, vectors, tmp_path):
    encoder.save(tmp_path / "saved")
    restored = SentenceEncoder(tmp_path / "saved")
    assert restored.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(restored(TEXTS), vectors)
    stored, published = (
        (path / "model.safetensors").stat().st_size for path in (restored.path, encoder.path)
    )
    assert stored < 0.51 * published
    # Its own folder is left alone: a kill in the middle would tear the only copy.
    written = (restored.path / "model.safetensors").stat().st_mtime_ns
    restored.save(restored.path)
    assert (restored.path / "model.safetensors").stat().st_mtime_ns == written
    config = json.loads((restored.path / "config.json").read_text())
    (restored.path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 6}))
    assert SentenceEncoder(restored.path).fingerprint != encoder.fingerprint


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(load.PACKAGES, "minilm", "no_such_package")
    with pytest.raises(InputNotFoundError, match="no-such-package"):
        resolve("minilm")
