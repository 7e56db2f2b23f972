"""Benchmarks of the text loader."""

import json

import pytest
from benchmarks.__main__ import main
from benchmarks.alternate import figures
from benchmarks.data.loader import loader
from benchmarks.memory import streaming_memory


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": f"Number {n} follows {n - 1}. " * 40}) + "\n" for n in range(300)
        )
    )
    return str(path)


def test_the_loader_suite_reports_tokens_per_second(corpus):
    report = loader(corpus, rounds=1)
    [speed] = figures(report)
    assert {"inline", "background thread, masked", "in memory, inline"} < {
        name for name, *_ in speed["rows"]
    }
    assert all(
        float(rate.removesuffix(" M")) > 0 for _, *rates, _ in speed["rows"] for rate in rates
    )
    assert "Seconds to the first batch after restoring one of" in report


def test_streaming_memory_is_measured_in_separate_processes(corpus):
    [report] = figures(streaming_memory.streaming_memory(corpus, min_bytes=1000))
    assert [name for name, *_ in report["rows"]] == [
        "streamed, window 4,000",
        "streamed, window 400",
        "in memory",
    ]
    for _, early, late, change, peak, added in report["rows"]:
        early, late, peak, added = (
            float(cell.removesuffix(" MB")) for cell in (early, late, peak, added)
        )
        assert 0 < added < peak
        assert max(early, late) <= peak + 1
        assert float(change.removesuffix("%")) == pytest.approx(100 * (late / early - 1), abs=2)


@pytest.mark.parametrize("suite", ["loader", "streaming_memory"])
def test_a_missing_source_is_one_line(capsys, suite):
    assert main([f"suite={suite}"]) == 2
    assert capsys.readouterr().err.startswith(f"suite={suite}: expected source=")
