"""Where the rows come from, step by step, and which of them are trained on."""

import gzip
import hashlib
import http.server
import importlib.util
import logging
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlxlab.data.titanic import sources
from mlxlab.data.titanic.sources import download, load_passengers, parse_arff
from mlxlab.data.titanic.split import fold_numbers, hold_out, split_rows
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError
from support.titanic import NOWHERE, csv_text, new_titanic, real_rows

ROWS = real_rows()
IDS = np.array([row.id for row in ROWS[:891]])
LABELS = np.array([row.survived for row in ROWS[:891]])


def unpack_the_wheels_file():
    folder = Path(importlib.util.find_spec("sklearn").origin).parent
    return gzip.decompress((folder / sources.WHEEL_FILE).read_bytes())


ARFF = unpack_the_wheels_file()


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setattr(sources, "WHEEL_FILE", "not/there.arff.gz")


@pytest.fixture
def server():
    """A web server on loopback that answers `server.answer`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.answer)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}/Titanic.arff"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_wheel_carries_the_real_rows_in_the_usual_split():
    found = load_passengers(None, NOWHERE)
    assert [row.id for row in found.train] == list(range(1, 892))
    assert [row.id for row in found.test] == list(range(892, 1310))
    assert (sum(row.survived for row in found.train), sum(row.survived for row in found.test)) == (342, 158)
    assert found.train[0] == (1, 0, 3, "Braund, Mr. Owen Harris", "male", 22.0, 1, 0, "A/5 21171", 7.25, None, "S")
    assert found.test[0] == (892, 0, 3, "Kelly, Mr. James", "male", 34.5, 0, 0, "330911", 7.8292, None, "Q")
    rows = [*found.train, *found.test]
    missing = Counter(name for row in rows for name, value in row._asdict().items() if value is None)
    assert missing == {"age": 263, "fare": 1, "cabin": 1014, "embarked": 2}
    assert [line.split(": ", 1)[1] for line in found.lines] == [
        "nothing downloaded in the cache",
        "1309 real rows from the scikit-learn wheel, sha256 as expected",
    ]


def test_what_was_known_only_afterwards_is_not_read():
    assert not {"boat", "body", "home.dest"} & set(ROWS[0]._fields)
    assert not any("St Louis" in str(value) for row in ROWS for value in row)


def test_the_order_list_is_the_published_one():
    path = Path(sources.__file__).with_name("passenger_id_order.json")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "324a9b08725aa807a387927c2c227bc36be5a5dbfd88edf8a98110d9a68a40df"


def test_a_named_file_comes_first_and_its_checksum_is_said(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv_text(ROWS[:100]))
    found = load_passengers(str(path), NOWHERE)
    assert found.train == list(ROWS[:100])
    assert found.test == []
    assert found.lines[0].startswith(f"titanic: 100 rows from {path}, sha256 {found.digest[:12]} (not a checksum")


def test_test_rows_in_a_named_file_are_pointed_out(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv_text(ROWS[880:900]))
    assert "9 rows of" in load_passengers(str(path), NOWHERE).lines[1]


def test_a_missing_named_file_never_falls_through_to_other_rows(tmp_path):
    with pytest.raises(InputNotFoundError):
        load_passengers(str(tmp_path / "none.csv"), NOWHERE)


def test_a_server_is_asked_last_and_its_rows_are_kept(tmp_path, server, no_wheel, monkeypatch):
    monkeypatch.setattr(sources, "URL", server.url)
    server.answer = ARFF
    first = load_passengers(None, tmp_path)
    assert (first.train, first.test) == (list(ROWS[:891]), list(ROWS[891:]))
    assert len(first.lines) == 3
    assert "1309 real rows from http://127.0.0.1" in first.lines[2]
    server.answer = b""
    second = load_passengers(None, tmp_path)
    assert second.lines == ["titanic: 1309 real rows from the cache, sha256 as expected"]
    assert second.train == first.train


def test_rows_of_another_checksum_are_not_used(tmp_path, server, no_wheel, monkeypatch, caplog):
    monkeypatch.setattr(sources, "URL", server.url)
    server.answer = ARFF.replace(b"Braund", b"Bround")
    (tmp_path / "titanic.arff").write_bytes(ARFF[:-1])
    with pytest.raises(ServiceUnavailableError, match="no Titanic rows") as caught:
        load_passengers(None, tmp_path)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert all(word in said for word in ("corrupt", "without its test data", "another sha256", "data.source=<path>"))
    assert len(caplog.records) == 1
    server.answer = b"0" * 10**7  # never read to its end
    assert "118040 bytes" in download(server.url)[1]


def test_without_any_source_the_fault_says_what_was_tried_and_never_invents(no_wheel, monkeypatch):
    monkeypatch.setattr(sources, "URL", "http://127.0.0.1:9/")
    with pytest.raises(ServiceUnavailableError) as caught:
        load_passengers(None, NOWHERE)
    assert caught.value.exit_code == 69
    assert download("http://127.0.0.1:9/", 1)[0] is None
    assert download("nonsense", 1)[0] is None


def test_an_unreadable_cache_is_passed_over(tmp_path, caplog):
    (tmp_path / "titanic.arff").mkdir()
    assert "wheel" in load_passengers(None, tmp_path).lines[1]
    (tmp_path / "titanic.arff").rmdir()
    (tmp_path / "titanic.arff").write_bytes(b"torn")
    found = load_passengers(None, tmp_path)
    assert found.lines[0] == "titanic: the file in the cache is corrupt, not used"
    assert len(caplog.records) == 1


def test_invented_rows_are_named_so_everywhere(tmp_path):
    data = new_titanic(tmp_path, source="synthetic")
    assert data.name == "titanic-synthetic"
    assert "SYNTHETIC" in data.sources[0]
    assert all("synthetic" in line for line in data.sources)
    assert all("synthetic" in path.name for path in tmp_path.iterdir())
    women = [row.survived for row in data.train_rows if row.sex == "female"]
    men = [row.survived for row in data.train_rows if row.sex == "male"]
    assert np.mean(women) > np.mean(men) + 0.2  # no coin flips
    assert data.test_rows == []


def test_an_arff_row_too_few_is_an_error():
    text = ARFF.decode().rstrip()
    with pytest.raises(ValueError, match="shorter"):
        parse_arff(text[: text.rindex("\n")])


@pytest.mark.parametrize("seed", range(3))
def test_folds_partition_the_rows_and_are_stratified(seed):
    numbers = fold_numbers(IDS, LABELS, 5, seed)
    assert sorted(Counter(numbers.tolist()).values()) == [178, 178, 178, 178, 179]
    shares = [LABELS[numbers == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.01
    assert not np.array_equal(numbers, fold_numbers(IDS, LABELS, 5, seed + 1))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.2, 0.5, 0.999])
def test_a_held_out_part_is_stratified_and_leaves_both_classes_on_both_sides(fraction):
    held = hold_out(IDS, LABELS, fraction, 0)
    for label in (0, 1):
        count = (label == LABELS).sum()
        expected = min(max(1, round(count * fraction)), count - 1)
        assert held[label == LABELS].sum() == expected


def test_the_split_depends_on_ids_not_on_the_order_of_rows():
    turned = np.random.default_rng(0).permutation(891)
    np.testing.assert_array_equal(hold_out(IDS, LABELS, 0.2, 3)[turned], hold_out(IDS[turned], LABELS[turned], 0.2, 3))
    np.testing.assert_array_equal(
        fold_numbers(IDS, LABELS, 5, 3)[turned], fold_numbers(IDS[turned], LABELS[turned], 5, 3)
    )


@pytest.mark.parametrize("folds", [None, 5])
def test_no_passenger_is_on_both_sides_and_none_is_of_the_test_set(folds):
    split = split_rows(list(ROWS[:891]), None, 0.2, folds, 0, 0)
    train, valid = ({row.id for row in part} for part in split[:2])
    assert not train & valid
    assert train | valid == set(range(1, 892))


def test_validation_rows_may_come_from_a_file_but_not_be_training_rows(tmp_path):
    path = tmp_path / "valid.csv"
    path.write_text(csv_text(ROWS[800:891]))
    split = split_rows(list(ROWS[:800]), str(path), 0.2, None, 0, 0)
    assert (split.train, split.valid) == (list(ROWS[:800]), list(ROWS[800:891]))
    with pytest.raises(DataError, match="1:1: 10 PassengerIds are training rows too, the least is 801"):
        split_rows(list(ROWS[:810]), str(path), 0.2, None, 0, 0)


@pytest.mark.parametrize(
    ("folds", "fold", "valid_source"), [(None, 1, None), (5, 5, None), (2, 7, None), (5, 0, "valid.csv")]
)
def test_a_split_key_without_effect_is_refused(folds, fold, valid_source):
    with pytest.raises(ConfigError, match=r"data\.fold"):
        split_rows(list(ROWS[:891]), valid_source, 0.2, folds, fold, 0)


def test_a_class_too_small_to_be_split_is_refused():
    with pytest.raises(DataError, match="label 1 has 1 rows"):
        split_rows([row for row in ROWS[:10] if row.survived == 0 or row.id == 2], None, 0.2, None, 0, 0)
    with pytest.raises(DataError, match="expected at least 7"):
        split_rows(list(ROWS[:12]), None, 0.2, 7, 0, 0)


def test_logging_is_not_set_up_by_the_room():
    assert not logging.getLogger("mlxlab.data").handlers
