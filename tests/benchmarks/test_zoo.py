"""`suite=zoo` fails where an architecture passes other columns than listed."""

import json
from pathlib import Path

from benchmarks.__main__ import main
from benchmarks.models import zoo

PASSED = ["a", "10", "yes", "yes", "yes", "yes", ""]
NOT_EXPORTED = ["b", "20", "yes", "yes", "yes", "no", "logits differ by 6.2"]
ROWS = {"a": PASSED, "b": NOT_EXPORTED, "c": ["c", *PASSED[1:]]}
EXPECTED = {"b": {"fails": "exported", "why": "it is normalised"}}


def test_another_result_than_listed_is_exit_code_1(tmp_path, monkeypatch, capsys):
    (tmp_path / "expected.json").write_text(json.dumps(EXPECTED))
    monkeypatch.setattr(zoo, "EXPECTED", tmp_path / "expected.json")
    monkeypatch.setattr(zoo, "architectures", lambda: list(ROWS))
    monkeypatch.setattr(zoo, "version", lambda package: "1")
    monkeypatch.setattr(zoo, "_measure", lambda pending, *_: map(ROWS.get, pending))
    monkeypatch.chdir(tmp_path)
    assert main(["suite=zoo"]) == 0
    assert "| it is normalised |" in capsys.readouterr().out
    monkeypatch.setitem(ROWS, "b", ["b", *PASSED[1:]])
    monkeypatch.setitem(ROWS, "c", ["c", "", "no", "no", "no", "no", "no kernel"])
    assert main(["suite=zoo"]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 architectures pass every column:" in printed.out
    changes = "b: expected to fail exported, failed none; c: expected to fail none, failed forward no kernel"
    assert changes in printed.err


def test_the_documented_list_has_every_architecture_and_the_listed_failures():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "zoo.md").read_text()
    passed, _, failed = text.partition("The others:")
    names, listed = json.loads(zoo.CONFIGS.read_text()), json.loads(zoo.EXPECTED.read_text())
    assert [name for name in names if name not in listed and f"`{name}`" not in passed] == []
    assert [name for name in listed if f"`{name}`" not in failed] == []
