"""The benchmarks of the loader run, and say what they promise."""

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
    said = loader(corpus, rounds=1)
    assert all(way in said for way in ("inline", "background thread, masked", "in memory", "words looked up"))
    assert "First batch after going to one of" in said


def test_streaming_memory_is_measured_in_separate_processes(corpus, monkeypatch):
    monkeypatch.setattr(streaming_memory, "BYTES", 1000)
    said = streaming_memory.streaming_memory(corpus)
    assert said.count("MB |") == 12
    assert "in memory" in said


@pytest.mark.parametrize("suite", ["loader", "streaming_memory"])
def test_a_missing_source_is_one_line(capsys, suite):
    assert main([f"suite={suite}"]) == 2
    assert capsys.readouterr().err.startswith(f"suite={suite}: expected source=")
