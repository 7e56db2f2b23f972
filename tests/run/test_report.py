"""The report of a run: answers on the first screen, from any folder, however damaged or hostile."""

import json
import shutil
import tracemalloc

import pytest
import xxhash

from mlxlab.checkpoint.manifest import MANIFEST, read_manifest
from mlxlab.past_runs.collect_record import write_run_report
from mlxlab.record.run_file import read_run, write_run
from mlxlab.record.run_record import Evaluation
from mlxlab.views.numbers import number
from support.commands import command
from support.html_pages import ParsedPage
from support.processes import run, succeed, tiny_overrides
from support.run_records import best_metrics

main = command("report")

QUESTIONS = ("What was trained?", "How good is it?", "Compared with what?", "Can it be trusted?")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported") / "run"
    overrides = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2", "data.baselines=true")
    overrides.remove("~callbacks.report")
    done = succeed(*overrides, f"hydra.run.dir={folder}")
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def parsed(folder):
    return ParsedPage(write_run_report(folder).read_text())


def test_a_run_reports_what_was_trained_how_good_compared_with_what_and_whether_to_trust_it(
    finished,
):
    html = (finished / "report.html").read_text()
    page = ParsedPage(html)
    positions = [page.text.index(question) for question in QUESTIONS]
    assert positions == sorted(positions)
    assert number(best_metrics(finished)["valid/accuracy"]) in page.text
    for text in ("bert on titanic", "majority", "No test data", "Confusion matrix"):
        assert text in page.text
    assert page.addresses == []
    assert "<script" not in html


def test_the_record_has_what_the_run_knew(finished):
    record = read_run(finished)
    assert record.status == "finished"
    assert record.is_evaluated
    assert record.data.classes == ["died", "survived"]
    assert record.data.rows == {"training": 713, "validation": 178}
    assert record.model.shape == {"layers": 1, "width": 32, "heads": 2}
    assert record.training.steps == 4
    assert [step for step, _ in record.training.evaluations] == [2, 4]
    (result,) = record.evaluation.results
    assert result.rows == sum(map(sum, result.diagnostics.confusion)) == 178
    assert {"majority", "tfidf_logistic_regression"} <= result.baselines.keys()


def test_the_report_is_a_function_of_the_folder(finished, capsys):
    written = (finished / "report.html").read_bytes()
    assert main([str(finished), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"reports": [str(finished / "report.html")], "verdict": []}
    assert (finished / "report.html").read_bytes() == written


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.lock", b"[" * 10**6, "run.lock"),
        ("verify.json", b"{}", "verify.json"),
        ("reproduction.json", b"null", "reproduction.json"),
        ("checkpoints/step-00000004/model.safetensors", b"short", "step-00000004: model.safet"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_reported(folder, name, content, said):
    (folder / name).write_bytes(content)
    text = parsed(folder).text
    assert "Damaged files" in text
    assert said in text
    assert all(question in text for question in QUESTIONS)


def test_huge_files_and_links_are_not_read(folder):
    checkpoint = folder / "checkpoints" / "step-00000004"
    with (checkpoint / "state.json").open("wb") as file:
        file.truncate(100 * 2**20)
    fields = {key: value for key, value in read_manifest(checkpoint).items() if key != "checksum"}
    fields["files"]["state.json"] = {"size": 100 * 2**20, "xxh3_128": "0" * 32}
    checksum = xxhash.xxh3_128_hexdigest(json.dumps(fields, sort_keys=True).encode())
    (checkpoint / MANIFEST).write_text(json.dumps(fields | {"checksum": checksum}))
    with (folder / "verify.json").open("wb") as file:
        file.truncate(100 * 2**20)
    (folder / "reproduction.json").symlink_to("/etc/passwd")
    tracemalloc.start()
    page = parsed(folder)
    assert tracemalloc.get_traced_memory()[1] < 80 * 2**20
    tracemalloc.stop()
    assert "verify.json: larger than" in page.text
    assert "reproduction.json: cannot be opened as a regular file" in page.text
    assert "root:" not in page.text
    assert (folder / "report.html").stat().st_size < 10**6


def test_what_happened_since_is_in_the_report_of_an_older_run(folder):
    record = read_run(folder)
    record.status = "interrupted"
    record.attempts[0].warnings = ["disk almost full"]
    record.evaluation = Evaluation()
    record.is_evaluated = False
    write_run(folder, record)
    (folder / "verify.json").write_text('{"format": 1, "steps": [2, 4], "difference": ""}')
    assert main([str(folder), f"out={folder / 'other'}"]) == 0
    text = ParsedPage((folder / "other" / "report.html").read_text()).text
    command = f"mlxlab train hydra.run.dir={folder} resume=auto"
    for part in ("interrupted", "disk almost full", "Verified", command, "Not compared"):
        assert part in text


def test_a_run_that_fails_is_reported_as_far_as_it_got(tmp_path):
    overrides = tiny_overrides("trainer.learning_rate=1e12", "trainer.max_nonfinite_steps=2")
    overrides.remove("~callbacks.report")
    done = run(*overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode != 0
    text = ParsedPage((tmp_path / "run" / "report.html").read_text()).text
    assert "Failed" in text
    assert "bert on titanic" in text


def test_a_run_that_stops_before_its_first_log_line_is_reported(tmp_path):
    overrides = tiny_overrides(
        "trainer.eval_every=1",
        "trainer.log_every=100",
        "trainer.learning_rate=1e-12",
        "callbacks.early_stopping.patience=1",
    )
    overrides.remove("~callbacks.report")
    succeed(*overrides, f"hydra.run.dir={tmp_path}")
    assert (tmp_path / "STATUS.finished").exists()
    assert read_run(tmp_path).training.steps < 40
    assert "validation accuracy" in ParsedPage((tmp_path / "report.html").read_text()).text
