"""Mixtures of sources, and splits of a source into training and validation."""

import json

import pytest

from mlxlab.data.sources import text_files
from mlxlab.data.text.documents import (
    HASH_RANGE,
    Document,
    HoldoutSplit,
    hashes,
    hold_out,
)
from mlxlab.data.text.order import Mixture
from mlxlab.errors import DataError
from support.streams import open_source
from support.text import documents_of, texts_of, write_texts


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A large, a small and a tiny source."""
    monkeypatch.setattr(text_files, "MIN_RANGE", 1024)
    opened = []
    for name, count in {"large": 900, "small": 120, "tiny": 3}.items():
        texts = [f"{name} {n} " + "x" * (n % 90) for n in range(count)]
        opened.append(open_source(str(write_texts(tmp_path / f"{name}.jsonl", texts)), window=4))
    return opened


WEIGHTS = [0.6, 0.3, 0.1]


def shares(texts, names=("large", "small", "tiny")):
    sizes = [sum(len(text) for text in texts if text.startswith(name)) for name in names]
    return [size / sum(sizes) for size in sizes]


def test_a_mixture_holds_every_source_by_its_weight_in_every_window(sources):
    windows = [documents for _, documents in Mixture(sources, WEIGHTS, window=5).windows(0, 0)]
    texts = [[document.text for document in documents] for documents in windows]
    assert len(texts) > 5
    for window in texts:
        assert shares(window) == pytest.approx(WEIGHTS, abs=0.05)
    assert shares([text for window in texts for text in window]) == pytest.approx(
        WEIGHTS, abs=0.005
    )


def test_an_epoch_of_a_mixture_ends_when_every_source_was_read_once(sources):
    mixture = Mixture(sources, WEIGHTS, window=5)
    documents = documents_of(mixture)
    texts = [document.text for document in documents]
    assert {text for source in sources for text in texts_of(source)} == set(texts)
    # The one that takes longest is read once, and at most a window more.
    assert 900 <= len([text for text in texts if text.startswith("large")]) < 1000
    small = [text for text in texts if text.startswith("small")]
    assert sorted(small[:120]) == sorted(small[120:240])
    assert small[:120] != small[120:240]
    known = {document.text: document.id for document in documents}
    assert len(set(known.values())) == len(known) == 1023
    assert all(0 <= number < 2**63 for number in known.values())
    others = documents_of(mixture, 4, 2)
    assert all(known[document.text] == document.id for document in others)
    assert [each.id for each in documents] != [each.id for each in others]


def test_mixtures_and_holdout_splits_resume_exactly_at_any_position(sources):
    for source in (Mixture(sources, WEIGHTS, window=5), split(sources[0], 0.3, "train")):
        windows = list(source.windows(3, 1))
        for number, (position, _) in [*enumerate(windows)][::7]:
            assert list(source.windows(3, 1, json.loads(json.dumps(position)))) == windows[number:]


@pytest.mark.parametrize(
    "position", [0, [], [[0, None, 0, 0]], [[0, None, 10**6, 0]] * 3, [[-1, None, 0, 0]] * 3]
)
def test_an_invalid_position_of_a_mixture_is_refused(sources, position):
    with pytest.raises(DataError, match="saved position"):
        documents_of(Mixture(sources, WEIGHTS, 4000), position=position)


def split(source, fraction, side):
    return HoldoutSplit(source, fraction, side == "valid", round(fraction * HASH_RANGE))


def test_training_and_validation_partition_the_source(sources):
    train, valid = split(sources[0], 0.1, "train"), split(sources[0], 0.1, "valid")
    sides = documents_of(train), documents_of(valid)
    assert sorted(sides[0] + sides[1]) == sorted(documents_of(sources[0]))
    assert 50 < len(sides[1]) < 130
    assert sorted(documents_of(valid, 7, 3)) == sorted(sides[1])
    assert len({train.fingerprint, valid.fingerprint, sources[0].fingerprint}) == 3


def test_added_documents_do_not_move_others_between_training_and_validation(sources, tmp_path):
    more = write_texts(tmp_path / "more.jsonl", texts_of(sources[0]) + ["another"] * 50)
    before = set(texts_of(split(sources[0], 0.1, "valid")))
    after = texts_of(split(open_source(str(more), window=9), 0.1, "valid"))
    assert before == set(after) - {"another"}
    assert after.count("another") in (0, 50), "copies lie on one side"


def test_a_small_source_always_has_something_to_hold_out(tmp_path):
    for count in range(2, 40):
        texts = [f"{count}: document {n}" for n in range(count)]
        source = open_source(str(write_texts(tmp_path / f"{count}.jsonl", texts)))
        train, valid = hold_out(source, 0.02)
        sides = texts_of(train), texts_of(valid)
        assert sorted(sides[0] + sides[1]) == sorted(texts)
        by_fraction = [text for text in texts if hashes([Document(0, text)])[0] < 0.02 * 2**32]
        assert len(sides[1]) == max(len(by_fraction), 1)
