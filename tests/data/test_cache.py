"""Caches: named by content, atomic, rebuilt when corrupt or forged, safe for concurrent processes."""

import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest

from mlxlab.data.cache import HEADER_BYTES, cached
from mlxlab.data.titanic import dataset
from support.titanic import csv_text, make_titanic, new_bpe_trainer, real_rows

MAGIC = b"ARROW1"  # at both ends of an Arrow file
CONTENT = MAGIC + bytes(range(256)) * 4 + MAGIC
HUGE = 20 * 2**30


class Builder:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return CONTENT


def use(folder, build, key="0" * 32):
    content, outcome = cached(
        folder / f"rows-{key}", lambda file: file.write(build()), lambda data: data[HEADER_BYTES:]
    )
    assert content == CONTENT
    return outcome


def test_the_second_use_is_a_hit(tmp_path):
    build = Builder()
    assert use(tmp_path / "new", build) == "miss"
    assert use(tmp_path / "new", build) == "hit"
    assert use(tmp_path / "new", build, "1" * 32) == "miss"
    assert build.count == 2


def damages(data):
    yield from (b"", data[: len(data) // 2], data[:-1], os.urandom(len(data)))
    for index in range(0, len(data), len(data) // 20):
        yield data[:index] + bytes([data[index] ^ 4]) + data[index + 1 :]


def test_a_malformed_cache_file_is_rebuilt_with_one_warning(tmp_path, caplog):
    use(tmp_path, Builder())
    (path,) = tmp_path.iterdir()
    for data in damages(path.read_bytes()):
        path.write_bytes(data)
        caplog.clear()
        build = Builder()
        assert use(tmp_path, build) == "miss"
        assert build.count == 1
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert use(tmp_path, Builder()) == "hit"


def test_a_folder_that_cannot_be_written_costs_a_warning_not_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    build = Builder()
    assert use(tmp_path / "file", build) == "miss"
    assert len(caplog.records) <= 2


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    assert use(tmp_path, Builder()) == "miss"
    assert list(tmp_path.iterdir()) == []


def test_concurrent_processes_all_succeed(tmp_path, small):
    folder, source = tmp_path / "cache", small.keywords["source"]
    code = (
        "import sys; from pathlib import Path\n"
        "from support.titanic import make_titanic, new_bpe_trainer\n"
        "tokenizer = new_bpe_trainer(vocab_size=400)\n"
        "data = make_titanic(Path(sys.argv[1]), source=sys.argv[2], tokenizer=tokenizer)\n"
        "print(data.fingerprint, sum(b.tokens.sum() for b in data.valid))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["tests", *sys.path])}
    command = [sys.executable, "-c", code, str(folder), source]
    start = partial(subprocess.Popen, env=environment, stdout=subprocess.PIPE, text=True)
    processes = [start(command) for _ in range(3)]
    answers = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    tokenizers = list((folder / "tokenizers").iterdir())
    assert len(answers) == len(list(folder.glob("tokens-*"))) == len(tokenizers) == 1


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """`make_titanic` of a tenth of the rows."""
    path = tmp_path_factory.mktemp("small") / "train.csv"
    path.write_text(csv_text(real_rows()[:130]))
    return partial(make_titanic, source=str(path), tokenizer=new_bpe_trainer(vocab_size=400))


@pytest.fixture(scope="module")
def made(tmp_path_factory, small):
    """A cache in which the data set of `small` is."""
    folder = tmp_path_factory.mktemp("made")
    small(folder)
    return folder


@pytest.fixture
def warm(made, tmp_path):
    return shutil.copytree(made, tmp_path / "cache")


CHANGES = [{"seed": 1}, {"templates": ["basic", "story"]}, {"seq_len": 64}, {"source": "synthetic"}]
CHANGES += [{"valid_fraction": 0.3}, {"folds": 5}, {"tokenizer": new_bpe_trainer(vocab_size=390)}]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_tokens_is_a_miss(warm, small, change):
    assert "cache: miss" in " ".join(small(warm, **change).sources)
    assert "cache: hit" in " ".join(small(warm, batch_size=7, prefetch=0).sources)


def test_an_edited_template_is_a_miss(warm, small, monkeypatch):
    rules = dataset.load_rules()
    edited = replace(rules, templates=rules.templates | {"basic": "A {{ Sex }} passenger."})
    monkeypatch.setattr(dataset, "load_rules", lambda: edited)
    assert "cache: miss" in " ".join(small(warm).sources)


def test_no_test_row_enters_the_cache(tmp_path):
    data = make_titanic(tmp_path, tokenizer=new_bpe_trainer(vocab_size=300))
    assert len(data.inputs.lengths) == 4 * 891
    assert data.split_sizes == (713, 178, 0)
    assert len(data.rows) == 891


def stretch(path):
    """Stretches a valid file by a hole that ends as an Arrow file does."""
    with path.open("r+b") as file:
        file.truncate(HUGE - len(MAGIC))
        file.seek(0, 2)
        file.write(MAGIC)


def forge(path):
    """The same, with a header that names the new size."""
    stretch(path)
    with path.open("r+b") as file:
        digest = file.read(HEADER_BYTES).split()[1]
        file.seek(0)
        file.write(b"mlxlab %s %d" % (digest, HUGE))


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), stretch, forge])
def test_a_sparse_file_of_20_gigabytes_is_refused_by_its_ends(tmp_path, damage):
    assert use(tmp_path, Builder()) == "miss"
    (path,) = tmp_path.iterdir()
    damage(path)
    with path.open("r+b") as file:
        file.truncate(HUGE)
    began = time.process_time()
    assert use(tmp_path, Builder()) == "miss"
    assert time.process_time() - began < 1
    assert path.stat().st_size < 2**20
    assert use(tmp_path, Builder()) == "hit"


def test_content_under_another_key_is_never_served(tmp_path):
    use(tmp_path, Builder())
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f"rows-{'1' * 32}")
    build = Builder()
    assert use(tmp_path, build, "1" * 32) == "miss"
    assert build.count == 1
