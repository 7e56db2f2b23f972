"""Benchmarks of the text loader."""

import json

import pytest
from benchmarks.__main__ import main
from benchmarks.loader import loader

from benchmarks import streaming_memory


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": f"Number {n} follows {n - 1}. " * 40}) + "\n" for n in range(300)))
    return str(path)


def test_the_loader_suite_reports_tokens_per_second(corpus):
    report = loader(corpus, rounds=1)
    assert all(name in report for name in ("inline", "background thread, masked", "in memory", "word cache"))
    assert "Seconds to the first batch after restoring one of" in report


def test_streaming_memory_is_measured_in_separate_processes(corpus, monkeypatch):
    monkeypatch.setattr(streaming_memory, "BYTES", 1000)
    report = streaming_memory.streaming_memory(corpus)
    assert report.count("MB |") == 12
    assert "in memory" in report


@pytest.mark.parametrize("suite", ["loader", "streaming_memory"])
def test_a_missing_source_is_one_line(capsys, suite):
    assert main([f"suite={suite}"]) == 2
    assert capsys.readouterr().err.startswith(f"suite={suite}: expected source=")
