"""The report of a sweep: from its journal, study or run folders to a page that can be read anywhere."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mlxlab.analysis.sweeps.sweep_jobs import read_sweep
from mlxlab.analysis.sweeps.sweep_report import write_sweep_report
from mlxlab.errors import InputNotFoundError
from support.browser import BROWSER, show
from support.commands import command
from support.html_pages import ParsedPage
from support.run_records import attempt_of, edit_run, write_result
from support.sweep_jobs import finished, write_sweep

main = command("report")

HOSTILE = "<script>alert(1)</script><img src=http://evil/x>"


def grid(folder, *, seeds=3, reason="", name="0.1"):
    """A grid of two keys, of which one point is better. One job fails if there is a reason."""
    rng, jobs = np.random.default_rng(0), []
    for rate in ("1e-4", "0.001"):
        for dropout in ("0", name):
            for seed in range(seeds):
                texts = [f"trainer.learning_rate={rate}", f"+model.dropout={dropout}"]
                texts += [f"seed={seed}", "trainer.epochs=2"]
                value = 0.6 + 0.01 * rng.standard_normal()
                if rate == "0.001" and dropout == "0":
                    value -= 0.2
                jobs.append(finished(len(jobs), texts, value))
    if reason:
        jobs[0] = replace(jobs[0], state="failed", reason=reason, value=None, exit_code=1)
        jobs[1] = replace(jobs[1], state="waiting", value=None)
    write_sweep(folder, jobs)
    return folder


def table(file):
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_a_grid_is_ranked_with_its_seeds_as_one(tmp_path, capsys):
    assert main([str(grid(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "Winner: trainer.learning_rate=0.001 model.dropout=0, valid/loss 0.4052" in out
    rows = table(tmp_path / "report" / "ranking.csv")
    assert [row["seeds"] for row in rows] == ["3"] * 4
    assert rows[0]["standing"] == "winner"
    assert len(table(tmp_path / "report" / "jobs.csv")) == 12
    page = ParsedPage((tmp_path / "report.html").read_text())
    assert "All jobs: trainer.epochs=2" in page.text
    assert page.tags.count("svg") == 1  # the ranking
    assert {file.name for file in (tmp_path / "report").iterdir()} == {"ranking.csv", "jobs.csv"}
    assert (rows[0]["trainer.learning_rate"], rows[0]["model.dropout"]) == ("0.001", "0")
    assert rows[0]["p"] == ""
    assert main([str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == out.splitlines()[:-1]


def test_numbers_are_one_value_only_if_they_are_equal(tmp_path):
    texts = ["1000001", "1000002", "1000001.0", "1e-3", "0.001"]
    texts += ["0.12345678", "0.123456789", "9007199254740993"]
    jobs = [finished(n, [f"x={x}"], n / 7) for n, x in enumerate(texts)]
    write_sweep(tmp_path, jobs)
    report = write_sweep_report(read_sweep(tmp_path), tmp_path)
    rows = table(tmp_path / "report" / "ranking.csv")
    distinct = ["1000001", "1000002", "0.001", "0.12345678", "0.123456789", "9007199254740993"]
    assert [row["x"] for row in rows] == distinct
    assert [float(row["valid/loss"]) for row in rows] == [0, 1 / 7, 3 / 7, 5 / 7, 6 / 7, 1]
    assert "x=1000001:" in report.verdict[0]


def test_a_misspelt_metric_suggests_the_nearest(tmp_path, capsys):
    grid(tmp_path, seeds=1)
    write_result(tmp_path / "1", {"accuracy": 0.5, "loss": 0.7})
    assert main([str(tmp_path), "metric=valid/acuracy"]) == 2
    assert "valid/acuracy: no such metric" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_names_and_reasons_of_strangers_are_text(tmp_path):
    write_sweep_report(read_sweep(grid(tmp_path, reason=HOSTILE, name=HOSTILE)), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = ParsedPage(text)
    assert HOSTILE in page.text
    assert "script" not in page.tags
    assert page.tags.count("svg") == 1
    assert page.addresses == []
    assert "default-src 'none'" in text
    assert "10 finished, 1 failed, 1 unfinished" in page.text


def search(folder, ends):
    """A search whose trials ended in these states, with these values."""
    records = []
    for number, (state, value) in enumerate(ends):
        record = finished(number, [f"rate={1e-4 * (number + 1)}"], value)
        reason = {"failed": "out of memory", "paused": "paused: at 10 steps"}
        records.append(replace(record, state=state, reason=reason.get(state, "")))
    write_sweep(folder, records)


def test_a_search_counts_only_trials_that_ran_to_their_end(tmp_path):
    ends = [("finished", 0.5), ("finished", 0.4), ("paused", 0.1), ("failed", None)]
    search(tmp_path, ends)
    sweep = read_sweep(tmp_path)
    assert [job.state for job in sweep.jobs] == ["finished", "finished", "paused", "failed"]
    report = write_sweep_report(sweep, tmp_path)
    assert report.verdict[0].startswith("No winner is named with fewer than 3 seeds of each")
    assert "rate=0.0002" in report.verdict[0]
    page = ParsedPage(report.page.read_text()).text
    assert "valid/loss 0.1; paused: at 10 steps" in page
    assert "Paused: stopped by successive halving" in page
    assert (tmp_path / "report" / "ranking.csv").read_text().startswith("rank,valid/loss,rate,")


def test_the_seconds_of_a_job_are_those_of_all_its_attempts(tmp_path):
    grid(tmp_path, seeds=1)
    attempts = [attempt_of("running"), attempt_of(start=2000.0, end=2005.0)]
    edit_run(tmp_path / "1", lambda record: setattr(record, "attempts", attempts))
    assert [job.seconds for job in read_sweep(tmp_path).jobs] == [2.5, 65.0, 2.5, 2.5]


def test_a_folder_without_jobs_has_no_report(tmp_path):
    with pytest.raises(InputNotFoundError, match="expected the folder of a sweep"):
        read_sweep(tmp_path)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (400, "dark"), (1600, "light")])
def test_a_browser_shows_the_report_without_overflow_and_requests(tmp_path, width, scheme):
    long = "a_name_of_an_option_that_is_much_too_long_for_a_line_of_400_pixels"
    write_sweep_report(read_sweep(grid(tmp_path, reason=HOSTILE, name=long)), tmp_path)
    shown = show(tmp_path / "report.html", tmp_path / "profile", width=width, scheme=scheme)
    image = imread(io.BytesIO(shown.png))[..., :3]
    assert shown.scroll_width == image.shape[1] == width
    assert image.shape[0] > 1500
    assert (image[0].max() < 0.2) == (scheme == "dark")  # the background
    inked = (np.abs(image - image[0, 0]).max(axis=-1) > 0.1).mean(axis=1)
    assert np.count_nonzero(inked > 0) > 800  # lines of pixels with text or a figure
    assert [url for url in shown.requests if not url.startswith(("data:", "file:"))] == []
    if folder := os.environ.get("MLXLAB_SCREENSHOTS"):
        (Path(folder) / f"report-{width}-{scheme}.png").write_bytes(shown.png)
