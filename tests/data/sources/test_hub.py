"""Data sets of the hub, from a server on loopback: exact positions, retried outages, errors in one line."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mlxlab.data.sources.block import FIRST
from mlxlab.data.sources.hub import HuggingFaceRows
from mlxlab.data.sources.text_files import ignore
from mlxlab.errors import ServiceUnavailableError
from support.hub_reading import NAME, TEXTS
from support.streams import open_source

pytestmark = pytest.mark.skipif(
    find_spec("datasets") is None, reason="the extra hub is not installed"
)
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of a process that reads a hub on loopback."""
    home = str(tmp_path_factory.mktemp("home"))
    command = [sys.executable, "-W", "ignore", "-m", "support.hub_reading", home]
    finished = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def documents_in(windows):
    return [document for _, documents in windows for document in documents]


def test_every_document_of_the_split_is_read_once_per_epoch(results):
    first, second = documents_in(results["first"]), documents_in(results["second"])
    assert sorted(text for _, text in first) == sorted(TEXTS[:750])
    assert len({number for number, _ in first}) == 750
    assert sorted(first) == sorted(second)
    assert first != second
    assert sorted(text for _, text in results["validation"]) == sorted(TEXTS[750:])


def test_reading_resumes_exactly_and_without_delay_at_every_position(results):
    assert len(results["exact"]) > 15
    assert all(results["exact"])
    assert results["seconds"] < 1


def test_outages_and_cut_connections_change_no_document_and_no_token(results):
    assert not results["outages left"], "they were met"
    assert results["in spite of outages"]
    assert results["same tokens in spite of outages"]
    assert len(results["exact tokens"]) > 15
    assert all(results["exact tokens"])


def test_a_wrong_name_is_refused_in_one_line_with_the_alternatives(results):
    expected = [
        (66, "no such data set on the hub"),
        (2, "has train, validation"),
        (2, "Available: ['default']"),
        (65, "no column 'txt', expected one of id, text, label"),
        (66, "no revision 'v2'"),
    ]
    for (code, line), (expected_code, part) in zip(results["wrong"], expected, strict=True):
        assert code == expected_code
        assert part in line
        assert "\n" not in line


def test_labelled_rows_hold_every_column_and_the_names_of_classes(results):
    texts = TEXTS[750:]
    labels = [[None, "negative", "positive"][n % 3] for n in range(len(texts))]
    assert results["rows"] == {"id": [*map(str, range(len(texts)))], "text": texts, "label": labels}
    assert re.fullmatch(rf"{NAME}/validation@\w{{8}}: shard 0, row 101", results["location"])


def test_without_its_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServiceUnavailableError, match=r"pip install -e .*\[hub\]"):
        open_source(NAME)


class Stream:
    """A data set of one shard whose reading fails."""

    num_shards = 1
    info = SimpleNamespace(splits=None)
    split = "train"
    column_names = None
    features = None

    def shard(self, count, index):
        return self

    def skip(self, count):
        raise ConnectionError("cut off")

    def with_format(self, name):
        return self

    def iter(self, batch_size):
        yield pa.table({"text": ["a"]})
        raise ConnectionError("cut off")


def test_an_outage_that_lasts_ends_the_run_in_one_line(monkeypatch):
    monkeypatch.setattr("mlxlab.data.sources.hub.RETRY_DELAY", 0.01)
    monkeypatch.setattr("mlxlab.data.sources.hub.RETRY_LIMIT", 0.05)
    blocks = HuggingFaceRows(Stream(), "name", "").blocks(0, FIRST, ["text"])
    assert next(blocks).texts("text", ignore).to_pylist() == ["a"]
    with pytest.raises(
        ServiceUnavailableError, match="the hub stopped answering: ConnectionError: cut off"
    ):
        next(blocks)


def test_local_text_imports_nothing_of_the_hub_and_a_run_nothing_that_only_tables_need(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    code = """
import sys
import mlxlab.run.train, mlxlab.data.chat.dataset, mlxlab.data.text.dataset
unused = [name for name in ("pandas", "pyarrow.compute") if name in sys.modules]
from support.streams import open_source
list(open_source(sys.argv[1]).windows(0, 0))
print(unused + [name for name in ("datasets", "huggingface_hub", "pandas") if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.txt")]
    assert subprocess.check_output(command, cwd=TESTS, text=True).strip() == "[]"
