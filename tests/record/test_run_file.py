"""`run.json`: read as it was written, and refused in one line where it is damaged."""

import json
import os

import pytest

from mlxlab.errors import DataError, UserError
from mlxlab.record.run_file import FILE, read_run, write_run
from support.run_records import make_record


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = make_record()
    write_run(tmp_path, record)
    assert read_run(tmp_path) == record


def test_an_interval_without_its_metric_is_left_out(tmp_path):
    record = make_record()
    del record.evaluation.results[0].metrics["roc_auc"]
    write_run(tmp_path, record)
    assert [*read_run(tmp_path).evaluation.results[0].intervals] == ["accuracy"]


def test_a_number_that_is_not_finite_is_null(tmp_path):
    record = make_record()
    record.evaluation.results[0].metrics["loss"] = float("nan")
    write_run(tmp_path, record)
    assert read_run(tmp_path).evaluation.results[0].metrics["loss"] is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), "DONE"),
        (("extra",), 1),
        (("attempts",), []),
        (("data", "masked"), 1),
        (("format",), 2),
        (("evaluation", "results", 0, "intervals", "accuracy"), [0.1]),
        (("training", "steps"), 2**70),
        (("training", "best_step"), -1),
        (("attempts", 0, "start"), 1e300),
        (("attempts", 0, "end"), -1.0),
    ],
)
def test_a_wrong_field_is_named_in_one_line(tmp_path, path, value):
    write_run(tmp_path, make_record())
    tree = json.loads((tmp_path / FILE).read_text())
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (tmp_path / FILE).write_text(json.dumps(tree))
    with pytest.raises(DataError) as error:
        read_run(tmp_path)
    assert "\n" not in str(error.value)
    assert FILE in str(error.value)


def test_links_pipes_and_large_files_are_not_read(tmp_path):
    write_run(tmp_path, make_record())
    for name in ("link", "pipe", "large", "none"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / FILE).symlink_to(tmp_path / FILE)
    os.mkfifo(tmp_path / "pipe" / FILE)
    with (tmp_path / "large" / FILE).open("wb") as file:
        file.truncate(2**34)
    for name in ("link", "pipe", "large", "none"):
        with pytest.raises(UserError):
            read_run(tmp_path / name)


def test_writing_follows_no_link(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / FILE).symlink_to("victim")
    write_run(tmp_path, make_record())
    assert (tmp_path / "victim").read_text() == "kept"
