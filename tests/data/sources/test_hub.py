"""Data sets of the hub, from a server on loopback: exact positions, retried outages, errors in one line."""

import json
import os
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
from mlxlab.errors import InputNotFoundError, ServiceUnavailableError
from support.hub_reading import NAME, TEXTS
from support.streams import open_source

pytestmark = pytest.mark.skipif(
    find_spec("datasets") is None, reason="the extra hub is not installed"
)
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of a process that reads a hub on loopback."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "support.hub_reading",
        str(tmp_path_factory.mktemp("home")),
    ]
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


def test_outages_and_cut_connections_change_no_document(results):
    assert not results["outages left"], "they were met"
    assert results["in spite of outages"]


def test_a_stream_of_tokens_survives_outages_resumes_threads_and_other_numbers_of_processes(
    results,
):
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


def test_without_network_one_line_says_so(tmp_path):
    code = "import sys; from support.streams import open_source; open_source(sys.argv[1])"
    here = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code, NAME]
    finished = subprocess.run(
        command, cwd=TESTS, env=here, capture_output=True, text=True, check=False
    )
    last = finished.stderr.splitlines()[-1]
    assert "ServiceUnavailableError" in last
    assert "the hub cannot be reached" in last


def test_without_its_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServiceUnavailableError, match=r"pip install -e .*\[hub\]"):
        open_source(NAME)


def test_the_folder_of_a_local_path_makes_it_no_name_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "books").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputNotFoundError, match="did you mean texts/books"):
        open_source("texts/boks")


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


def test_local_text_imports_nothing_of_the_hub(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    code = "import sys; from support.streams import open_source; "
    code += "list(open_source(sys.argv[1]).windows(0, 0))"
    code += "; print([name for name in ('datasets', 'huggingface_hub', 'pandas') if name in sys.modules])"
    command = [sys.executable, "-c", code, str(tmp_path / "a.txt")]
    assert subprocess.check_output(command, cwd=TESTS, text=True).strip() == "[]"


def test_a_run_imports_nothing_that_only_tables_need():
    code = "import sys, mlxlab.run.train, mlxlab.data.chat.dataset, mlxlab.data.text.dataset"
    code += "; print([name for name in ('pandas', 'pyarrow.compute') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
