"""`example_losses`: tables and files of the per-example losses."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlxlab.errors import DataError, UserError
from mlxlab.extensions.example_losses import files as example_losses
from support.commands import command
from support.losses import write_losses

main = command("example_losses")


@pytest.fixture
def losses(tmp_path):
    ids = np.arange(1, 6)
    table = {"id": ids, "step": ids, "time": ids * 1.0, "targets": np.ones(5, np.float32)}
    table |= {name: (ids / 10).astype(np.float32) for name in ("sum", "mean", "kl")}
    table["cross_entropy"] = np.full(5, np.nan, "f4")
    write_losses(table, tmp_path / "a.parquet")
    return tmp_path


def ids(out):
    return [int(line.split("|")[1]) for line in out.splitlines()[3:]]


def test_top_shows_the_hardest_first(losses, capsys):
    assert main(["top", str(losses / "a.parquet"), "count=2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 hardest of 5 examples, by mean")
    assert ids(out) == [5, 4]
    assert main(["top", str(losses / "a.parquet"), "count=2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["id"], row["cross_entropy"]) for row in rows] == [(5, None), (4, None)]
    assert main(["top", str(losses / "a.parquet"), "count=2", "mode=easiest", "by=kl"]) == 0
    assert ids(capsys.readouterr().out) == [1, 2]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["topp", "x"], 2, "top"),
        (["top"], 2, "source"),
        (["top", "nowhere"], 66, "nowhere"),
        (["top", "{a}", "by=loss"], 2, "mean, sum, kl, cross_entropy"),
        (["top", "{a}", "by=cross_entropy"], 65, "finite cross_entropy"),
        (["top", "{a}", "conut=3"], 2, "count"),
        (["top", "{a}", "count=0"], 2, ">= 1"),
    ],
)
def test_wrong_input_is_one_line_and_its_exit_code(losses, capsys, args, code, message):
    assert main([arg.format(a=losses / "a.parquet") for arg in args]) == code
    out, err = capsys.readouterr()
    assert not out
    assert len(err.strip().splitlines()) == 1
    assert message in err


REQUIRED = {name: pa.array([1], "i8") for name in ("id", "step", "time", "sum", "mean")}


@pytest.mark.parametrize(
    "columns",
    [{"mean": pa.array([{"a": 1}])}, {"extra": pa.array(["text"])}],
    ids=["struct", "text"],
)
def test_a_parquet_file_of_anything_else_is_refused_in_one_line(tmp_path, columns):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(REQUIRED | columns), path)
    with pytest.raises(DataError, match="cannot be read as per-example losses") as error:
        example_losses.read(path)
    assert "\n" not in str(error.value)


def test_a_pipe_in_place_of_a_parquet_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(UserError):
        example_losses.read(tmp_path / "a.parquet")
