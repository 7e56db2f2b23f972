"""Benchmarks of the text loader."""

import json

import pytest
from benchmarks.alternate import figures
from benchmarks.data.loader import loader
from benchmarks.memory import streaming_memory


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.jsonl"
    texts = (f"Number {n} follows {n - 1}. " * 40 for n in range(300))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.mark.slow
def test_the_loader_suite_reports_tokens_per_second(corpus):
    report = loader(corpus, rounds=1)
    [speed] = figures(report)
    names = {name for name, *_ in speed["rows"]}
    assert {"inline", "background thread, masked", "in memory, inline"} < names
    rates = [rate for row in speed["rows"] for rate in row[1:-1]]
    assert all(float(rate.removesuffix(" M")) > 0 for rate in rates)
    assert "Seconds to the first batch after restoring one of" in report


@pytest.mark.slow
def test_streaming_memory_is_measured_in_separate_processes(corpus):
    [report] = figures(streaming_memory.streaming_memory(corpus, min_bytes=1000))
    names = [name for name, *_ in report["rows"]]
    assert names == ["streamed, window 4,000", "streamed, window 400", "in memory"]
    for _, early, late, change, peak, added in report["rows"]:
        sizes = [float(cell.removesuffix(" MB")) for cell in (early, late, peak, added)]
        early, late, peak, added = sizes
        assert 0 < added < peak
        assert max(early, late) <= peak + 1
        assert float(change.removesuffix("%")) == pytest.approx(100 * (late / early - 1), abs=2)
