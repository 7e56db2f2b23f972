"""The suite on labelled texts, with a few hundred of them."""

import csv

import pytest
from benchmarks.__main__ import main
from benchmarks.data.labelled import write_texts


def test_the_texts_are_those_of_the_seed_and_tell_the_label(tmp_path):
    for name in ("a.csv", "b.csv"):
        write_texts(tmp_path / name, 200)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"negative", "positive"}
    assert 120 < sum("splendid" in row["text"] or "dreadful" in row["text"] for row in rows) < 200
    assert all(("splendid" in row["text"]) <= (row["label"] == "positive") for row in rows)


@pytest.mark.slow
def test_the_table_compares_an_empty_cache_with_a_warm_one(capsys):
    assert main(["suite=labelled", "rows=500"]) == 0
    out = capsys.readouterr().out
    assert "500 texts" in out
    assert "| empty " in out
    assert "| warm " in out
