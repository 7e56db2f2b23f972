"""Vectors of texts are computed once, and those of a damaged file again."""

import numpy as np
import pytest

from mlxlab.models.cells.vectors import known_vectors


class Lengths:
    """The length of a text as a vector; counts the texts that it was asked for."""

    size = 2
    fingerprint = "lengths"

    def __init__(self):
        self.asked = 0

    def __call__(self, texts):
        self.asked += len(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)


TEXTS = ["one", "three", "one", "seven"]


def test_each_text_is_embedded_once_and_the_vectors_are_cached(tmp_path):
    embedder = Lengths()
    embed = known_vectors(embedder, TEXTS, tmp_path)
    assert embed(["seven", "one", "one"]).tolist() == [[5, 1], [3, 1], [3, 1]]
    assert embedder.asked == 3
    known_vectors(embedder, TEXTS, tmp_path)
    assert embedder.asked == 3
    known_vectors(embedder, TEXTS[1:], tmp_path)
    assert embedder.asked == 6


@pytest.mark.parametrize("damage", [b"", bytes(1000)])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    embedder = Lengths()
    known_vectors(embedder, TEXTS, tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(damage)
    assert known_vectors(embedder, TEXTS, tmp_path)(["three"]).tolist() == [[5, 1]]
    assert embedder.asked == 6
