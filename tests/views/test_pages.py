"""The views of a run: complete, of one verdict, and harmless whatever a record holds."""

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from mlxlab.files.untrusted import validate
from mlxlab.record.run_record import RunRecord, Sample, SplitResult
from mlxlab.views.commands import next_commands
from mlxlab.views.pages import closing_lines, run_page, summary
from mlxlab.views.run_tables import metrics_table
from mlxlab.views.run_view import RunView
from support.browser import BROWSER, show
from support.run_records import make_record, view_of

EVIL = (
    "<script>alert(1)</script> a|b `rm` \x1b[31m\x07\x9b2J \u202e [x](http://e) **b** _i_ &amp; #"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
FIXED = ("status", "task", "kind", "split", "format", "objective", "main_metric")


def evil(value):
    """The same tree, where every free text is another one."""
    if isinstance(value, dict):
        return {key: item if key in FIXED else evil(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [evil(item) for item in value]
    return EVIL if isinstance(value, str) else value


def evil_view():
    record = make_record()
    result = record.evaluation.results[0]
    result.baselines[EVIL] = result.baselines.pop("majority")
    result.gains[EVIL] = result.gains.pop("majority")
    result.metrics[EVIL] = 0.5
    result.never_predicted[EVIL] = 3
    record.evaluation.models = {"student": {EVIL: 1.0}, "teacher": {EVIL: 1.0}}
    record.rounds = [{EVIL: {"loss": 1.0}}]
    record.samples = [Sample("prompt", "text", "end")]
    record.training.events = [(1, "changed")]
    record.attempts[0].error = "error"
    record.attempts[0].warnings = ["warning"]
    record.config = {"name": "x", EVIL: "y"}
    tree = evil(asdict(record))
    return RunView(validate(tree, RunRecord), Path("/runs") / EVIL.replace("/", ""))


def test_no_text_of_a_record_reaches_html():
    page = run_page(evil_view())
    assert page.count("alert(1)") > 20
    assert not CONTROL.search(page)
    outside = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not {"script", "img", "iframe"} & {*re.findall(r"<([a-z0-9]+)", outside)}


def test_no_text_of_a_record_reaches_markdown():
    text = summary(evil_view())
    assert "alert(1)" in text
    assert "<script" not in text
    assert not CONTROL.search(text)
    assert not re.search(r"(?<!\\)`rm|(?<!\\)\]\(http", text)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_no_control_character_reaches_a_terminal():
    text = closing_lines(evil_view())
    assert "alert(1)" in text
    assert not CONTROL.search(text)


def test_no_credential_is_shown():
    record = make_record()
    record.data.source = "https://user:SECRET123@host/x.csv"
    record.command.first = ["data.source=https://user:SECRET123@host/x.csv"]
    for text in (run_page(view_of(record)), summary(view_of(record))):
        assert "SECRET123" not in text


def test_a_page_requests_nothing():
    page = run_page(view_of(make_record()))
    assert not re.search(r"(src|href|url\()=?[\"']?(https?:|//)", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("status", ["running", "failed", "killed", "interrupted", "paused"])
def test_a_run_without_results_has_all_views(status):
    record = RunRecord("0", "a run", status, make_record().attempts)
    view = view_of(record)
    for text in (run_page(view), summary(view), closing_lines(view)):
        assert status in text


def test_rows_out_of_fold_are_a_further_column():
    record = make_record()
    further = SplitResult("out_of_fold", 713, {"accuracy": 0.77}, {"accuracy": (0.7, 0.8)})
    record.evaluation.results.append(further)
    view = view_of(record)
    names = [column.name for column in metrics_table(view).columns]
    assert sum("out-of-fold" in name for name in names) == 1
    assert view.value == 0.76, "the run is judged by rows that nothing has learned from"
    assert "out-of-fold" in run_page(view)


def test_the_next_command_uses_the_model():
    record = make_record()
    assert next(iter(next_commands(view_of(record)))) == "predict"
    record.data.task = "language_modelling"
    assert next(iter(next_commands(view_of(record)))) == "generate"
    record.data.masked = True
    assert "generate" not in next_commands(view_of(record))


def test_views_import_no_heavy_module():
    heavy = ("numpy", "mlx", "matplotlib", "mlflow", "hydra")
    code = f"import sys, mlxlab.views.pages; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_a_browser_shows_the_page_without_overflow_and_requests(tmp_path, width, scheme):
    record = make_record()
    record.name = "a_name_that_is_much_too_long_for_a_line_of_390_pixels" * 2
    path = tmp_path / "report.html"
    path.write_text(run_page(view_of(record)))
    shown = show(path, tmp_path / "profile", width=width, scheme=scheme)
    assert shown.scroll_width == width
    assert [url for url in shown.requests if not url.startswith(("data:", "file:"))] == []
