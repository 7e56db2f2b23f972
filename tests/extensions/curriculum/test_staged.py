"""Mixtures in stages: the weights of each, and any position."""

import json

import pytest

from mlxlab.errors import ConfigError, DataError
from mlxlab.extensions.curriculum.staged import StagedOrder
from support.streams import open_source
from support.text import write_texts

STAGES = [[0, {"a": 1.0}], [0.25, {"a": 1.0, "b": 3.0}], [0.75, {"b": 2.0}]]


@pytest.fixture
def sources(tmp_path):
    opened = []
    for name, count in (("a", 300), ("b", 40)):
        texts = [f"{name} {n} " + "x" * (n % 60) for n in range(count)]
        path = write_texts(tmp_path / f"{name}.jsonl", texts)
        opened.append(open_source(str(path), window=4))
    return opened


def staged(sources, stages=STAGES, characters=20_000, window=1):
    return StagedOrder(stages, characters).mix(sources, {"a": 1, "b": 1}, window)


def test_each_stage_has_its_weights_and_an_epoch_its_length(sources):
    mixed = staged(sources)
    assert mixed.bytes == 20_000
    for epoch in (0, 1):
        size = {"a": 0, "b": 0}
        marks = {}
        for (done, _), documents in mixed.windows(0, epoch):
            marks[done] = dict(size)
            for document in documents:
                size[document.text[0]] += len(document.text)
        assert sum(size.values()) == pytest.approx(20_000, abs=200)
        assert marks[5000]["b"] == 0
        assert marks[5000]["a"] == pytest.approx(5000, abs=100)
        assert marks[15_000]["a"] - marks[5000]["a"] == pytest.approx(2500, abs=100)
        assert size["a"] == marks[15_000]["a"]


def test_any_position_is_reached_exactly(sources):
    mixed = staged(sources)
    windows = list(mixed.windows(3, 1))
    assert len(windows) > 10
    for number, (position, _) in enumerate(windows):
        assert list(mixed.windows(3, 1, json.loads(json.dumps(position)))) == windows[number:]
    for position in ([20_000, windows[0][0][1]], [0, []], [0, [[0, None, 0, 0]]], 7):
        with pytest.raises(DataError, match="saved position"):
            list(mixed.windows(3, 1, position))


def test_what_changes_the_text_changes_the_fingerprint(sources):
    known = staged(sources).fingerprint
    assert staged(sources, characters=20_001).fingerprint != known
    assert staged(sources, [*STAGES[:2], [0.7, {"b": 2.0}]]).fingerprint != known
    relative = [*STAGES[:2], [0.75, {"b": 1e308}]]
    assert staged(sources, relative).fingerprint == known
    assert staged(sources, characters=None).bytes == sum(source.bytes for source in sources)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([[0.1, {"a": 1.0}]], "starts that rise from 0"),
        ([[0, {"a": 1.0}], [1.0, {"b": 1.0}]], "rise from 0 to below 1"),
        ([[0, 1.0]], "expected .start, .source: weight"),
        ([[{"a": 1.0}, 0]], "expected .start, .source: weight"),
        ([[0, {"c": 1.0}]], r"c is no source of data\.mixture; expected one of a, b"),
        ([[0, {"a": 0.0}]], "a weight above 0 in each stage"),
    ],
)
def test_bad_stages_are_refused_in_one_line(sources, stages, message):
    with pytest.raises(ConfigError, match=message):
        staged(sources, stages)
