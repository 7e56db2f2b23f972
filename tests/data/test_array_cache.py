"""The token cache: named by content, atomic, rebuilt when corrupt, safe for two at once, free of test rows."""

import logging
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from mlxlab.data import array_cache
from mlxlab.data.array_cache import cached, content_key
from mlxlab.data.tokenizers.tokenizer import ByteLevelBPE
from support.titanic import csv_text, make_titanic, real_rows

ARRAYS = {"tokens": np.arange(1000, dtype=np.int32), "lengths": np.array([400, 600])}


class Builder:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return ARRAYS


def use(folder, build, key="0" * 32):
    arrays, said = cached(folder, "rows", key, build)
    assert set(arrays) == set(ARRAYS)
    for name in ARRAYS:
        np.testing.assert_array_equal(arrays[name], ARRAYS[name])
    return said


def test_the_second_use_is_a_hit(tmp_path):
    build = Builder()
    assert use(tmp_path / "new", build).startswith("miss")
    assert use(tmp_path / "new", build).startswith("hit")
    assert use(tmp_path / "new", build, "1" * 32).startswith("miss")
    assert build.count == 2


def damages(data):
    yield "emptied", b""
    yield "cut", data[: len(data) // 2]
    yield "its last byte cut", data[:-1]
    yield "other bytes", b"PK" + os.urandom(len(data))
    yield "a pickle", pickle.dumps(ARRAYS)
    for place in range(0, len(data), len(data) // 40):
        yield f"a bit flipped at {place}", data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def test_a_malformed_cache_file_is_rebuilt_with_one_warning(tmp_path, caplog):
    use(tmp_path, Builder())
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    for what, data in damages(sound):
        path.write_bytes(data)
        caplog.clear()
        build = Builder()
        said = use(tmp_path, build)
        if build.count:  # a flip in a time stamp does no harm
            assert [record.levelno for record in caplog.records] == [logging.WARNING], what
            assert said.startswith("corrupt"), what
            assert use(tmp_path, Builder()).startswith("hit"), what
    assert "a bit" not in said or len(sound)


def test_arrays_under_another_key_or_of_objects_are_never_served(tmp_path, caplog):
    use(tmp_path, Builder())
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f"rows-{'1' * 32}.npz")
    build = Builder()
    assert use(tmp_path, build, "1" * 32).startswith("corrupt")
    np.savez(tmp_path / f"rows-{'2' * 32}.npz", tokens=np.array([print], object))
    assert use(tmp_path, build, "2" * 32).startswith("corrupt")
    assert build.count == 2


def test_a_huge_promise_in_a_header_is_refused(tmp_path):
    use(tmp_path, Builder())
    (path,) = tmp_path.iterdir()
    with zipfile.ZipFile(path, "w") as file:
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999,), }"
        file.writestr("tokens.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert use(tmp_path, Builder()).startswith("corrupt")


def test_a_folder_that_cannot_be_written_costs_a_warning_not_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    build = Builder()
    assert use(tmp_path / "file", build).endswith("not cached")
    assert len(caplog.records) <= 2


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    assert use(tmp_path, Builder()).endswith("not cached")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once_both_succeed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from support.titanic import make_titanic\n"
        "data = make_titanic(Path(sys.argv[1])); print(data.fingerprint, sum(b.tokens.sum() for b in data.valid))"
    )
    environment = os.environ | {"PYTHONPATH": "tests"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0, 0]
    assert len(answers) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_keys_differ_where_any_part_does():
    parts = {"data": "a", "templates": {"x": "y"}, "seed": 1}
    assert content_key(**parts) == content_key(**dict(reversed(parts.items())))
    changes = ({"data": "b"}, {"templates": {"x": "z"}}, {"seed": 2})
    assert len({content_key(**(parts | change)) for change in changes} | {content_key(**parts)}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"templates": ["basic", "story"]},
        {"seq_len": 64},
        {"valid_fraction": 0.3},
        {"folds": 5},
        {"tokenizer": ByteLevelBPE(vocab_size=1000, min_frequency=2)},
        {"source": "synthetic"},
    ],
)
def test_whatever_changes_the_tokens_is_a_miss(tmp_path, change):
    make_titanic(tmp_path)
    assert "miss" in " ".join(make_titanic(tmp_path, **change).sources)
    assert "hit" in " ".join(make_titanic(tmp_path).sources)


def test_batch_sizes_and_prefetch_change_no_token(tmp_path):
    make_titanic(tmp_path)
    assert "hit" in " ".join(make_titanic(tmp_path, batch_size=7, eval_batch_size=9, prefetch=0).sources)


def test_a_byte_edited_in_the_source_is_a_miss(tmp_path):
    path = tmp_path / "train.csv"
    text = csv_text(real_rows()[:100])
    path.write_text(text)
    make_titanic(tmp_path, source=str(path))
    assert "hit" in " ".join(make_titanic(tmp_path, source=str(path)).sources)
    path.write_text(text.replace("Owen", "Olen"))
    assert "miss" in " ".join(make_titanic(tmp_path, source=str(path)).sources)


def test_an_edited_template_is_a_miss(tmp_path, monkeypatch):
    make_titanic(tmp_path)
    monkeypatch.setitem(
        __import__("mlxlab.data.titanic.templates", fromlist=["x"]).TEMPLATES, "basic", "A $sex passenger."
    )
    assert "miss" in " ".join(make_titanic(tmp_path).sources)


def test_no_test_row_enters_the_cache(tmp_path):
    data = make_titanic(tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path) as file:
        assert len(file["train_lengths"]) == 4 * len(data.train_rows) == 4 * 713
        assert len(file["valid_lengths"]) == len(data.valid_rows) == 178
        assert set(file.files) == {"digest", "train", "train_lengths", "valid", "valid_lengths"}
    assert max(row.id for row in [*data.train_rows, *data.valid_rows]) == 891


@pytest.mark.parametrize("change", ["dtype", "range", "lengths", "missing"])
def test_cached_tokens_with_a_right_digest_but_other_contents_are_made_again(tmp_path, change, caplog):
    expected = [batch.tokens.tolist() for batch in make_titanic(tmp_path).train]
    (path,) = tmp_path.glob("*.npz")
    key = path.stem.rpartition("-")[2]
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "digest"}
    if change == "dtype":
        arrays["train"] = arrays["train"].astype(np.int64)
    elif change == "range":
        arrays["train"] = arrays["train"] + 100_000
    elif change == "lengths":
        arrays["train_lengths"] = np.roll(arrays["train_lengths"], 1)[:-1]
    else:
        del arrays["valid"]
    array_cache._write(path, key, arrays)
    assert [batch.tokens.tolist() for batch in make_titanic(tmp_path).train] == expected
    assert "is corrupt" in caplog.text
