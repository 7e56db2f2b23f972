"""Easy documents first: each document once, the easy ones before the hard ones, from any position."""

import json

import numpy as np
import pytest

from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.extensions.curriculum.easy_first import EasyFirstOrder
from mlxlab.extensions.example_losses import files as example_losses
from support.streams import InMemorySource, texts

SOURCE = InMemorySource(texts(60), size=7)
ALL = [document for group in SOURCE.groups for document in group]


def documents_of(source, seed=0, epoch=0, position=None):
    return [
        document for _, documents in source.windows(seed, epoch, position) for document in documents
    ]


@pytest.fixture
def losses(tmp_path):
    """Losses of all but every fifth document, one of them not finite."""
    ids = np.array([document.id for number, document in enumerate(ALL) if number % 5], np.int64)
    mean = (ids * 37 % 101 / 10).astype(np.float32)
    mean[3] = np.nan
    rows = {"id": ids, "step": ids * 0, "time": np.zeros(len(ids)), "sum": mean, "mean": mean}
    example_losses.write(rows, tmp_path / "losses.parquet")
    return tmp_path / "losses.parquet", dict(zip(ids.tolist(), mean.tolist(), strict=True))


def test_short_documents_come_first_and_each_comes_once(tmp_path):
    easy = EasyFirstOrder("length", 4, None).arrange(SOURCE, None, None, tmp_path)
    for epoch in (0, 1):
        served = documents_of(easy, 3, epoch)
        assert sorted(served) == sorted(ALL)
        lengths = np.array([len(document.text) for document in served])
        quarter = np.sort(lengths)[len(lengths) // 4]
        assert lengths[:10].max() <= quarter
        assert lengths[-10:].min() >= np.sort(lengths)[-20]
    assert documents_of(easy, 3, 0) != documents_of(easy, 3, 1)
    assert (
        EasyFirstOrder("length", 4, None).arrange(SOURCE, None, None, tmp_path).fingerprint
        == easy.fingerprint
    )
    assert len(list((tmp_path / "document_lengths").iterdir())) == 1


def test_documents_of_low_loss_come_first_and_unknown_ones_in_the_middle(losses, tmp_path):
    path, by_id = losses
    served = documents_of(
        EasyFirstOrder("loss", 3, str(path)).arrange(SOURCE, None, None, tmp_path)
    )
    assert sorted(served) == sorted(ALL)
    known = [by_id.get(document.id, np.nan) for document in served]
    thirds = np.flatnonzero(np.isnan(known))
    assert len(thirds) == 13
    first, middle, last = (
        part[np.isfinite(part)]
        for part in np.split(np.array(known), [thirds[0] - 2, thirds[-1] + 4])
    )
    assert first.max() <= last.min()
    assert np.median(first) < np.median(middle) < np.median(last)


@pytest.mark.parametrize(
    "settings", [{}, {"limit": 20}, {"chosen": np.array([d.id for d in ALL[::3]])}]
)
def test_any_position_is_reached_exactly(tmp_path, settings):
    order = EasyFirstOrder("length", 5, None)
    easy = order.arrange(SOURCE, settings.get("limit"), settings.get("chosen"), tmp_path)
    windows = list(easy.windows(0, 0))
    for number, (position, _) in enumerate(windows):
        assert list(easy.windows(0, 0, json.loads(json.dumps(position)))) == windows[number:]
    served = {document for _, documents in windows for document in documents}
    plain = [
        d for d in documents_of(SOURCE) if "chosen" not in settings or d.id in settings["chosen"]
    ]
    assert served == set(plain[: settings.get("limit")])
    for position in ([5, None, 0], [0, None, -1], 3):
        with pytest.raises(DataError, match="saved position"):
            documents_of(easy, position=position)


def test_all_documents_equally_long_are_one_level(tmp_path):
    source = InMemorySource(["abc"] * 9)
    easy = EasyFirstOrder("length", 8, None).arrange(source, None, None, tmp_path)
    assert len(documents_of(easy)) == 9


def test_faults_are_one_line(tmp_path, losses):
    with pytest.raises(ConfigError, match="by=loss only"):
        EasyFirstOrder("loss", 3, None)
    with pytest.raises(ConfigError, match="by=loss only"):
        EasyFirstOrder("length", 3, "runs")
    with pytest.raises(InputNotFoundError, match="no such file"):
        EasyFirstOrder("loss", 3, str(tmp_path / "missing")).arrange(SOURCE, None, None, tmp_path)
    rows = example_losses.read(losses[0])
    example_losses.write(
        rows | {"mean": rows["mean"] * np.float32("nan")}, tmp_path / "nan.parquet"
    )
    with pytest.raises(DataError, match="none in 48 rows"):
        EasyFirstOrder("loss", 3, str(tmp_path / "nan.parquet")).arrange(
            SOURCE, None, None, tmp_path
        )
