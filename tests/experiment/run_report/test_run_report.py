"""The report of a run: answers on the first screen, from any folder, however damaged or hostile."""

import csv
import json
import re
import shutil
import tracemalloc

import pytest
import xxhash

from mlxlab.checkpoint.manifest import MANIFEST, read_manifest
from mlxlab.cli.report import main
from mlxlab.experiment.run_report.write import write_run_report
from support.browser import BROWSER, evaluate, show
from support.html_pages import BEYOND, ParsedPage
from support.processes import run, tiny_overrides

HOSTILE = "<script>alert(1)</script><img src=http://evil/x onerror=alert(2)>"
QUESTIONS = (
    "What was trained?",
    "How good is it?",
    "Compared with what?",
    "Can the model be trusted?",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported") / "run"
    overrides = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2", "data.baselines=true")
    overrides.remove("~callbacks.report")
    done = run(*overrides, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def parsed(folder):
    return ParsedPage(write_run_report(folder).read_text())


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_run_reports_what_was_trained_how_good_compared_with_what_and_whether_to_trust_it(
    finished,
):
    html = (finished / "report.html").read_text()
    page = ParsedPage(html)
    assert [page.text.index(question) for question in QUESTIONS] == sorted(
        map(page.text.index, QUESTIONS)
    )
    metrics = json.loads((finished / "metrics.json").read_text())
    assert f"validation accuracy {metrics['metrics']['valid/accuracy']:.4f}" in page.text
    assert "bert on titanic" in page.text
    assert "majority (the most frequent class): accuracy" in page.text
    assert "No test data." in page.text
    assert "None of the 4 steps was skipped." in page.text
    assert "Confusion matrix" in html
    assert f"mlxlab verify run={finished}" in page.text
    assert page.tags.count("h1") == 1
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert html.count("<img ") == html.count('alt="') >= 3
    assert "<script" not in html


def test_the_first_card_says_what_was_learned_from_what_and_for_how_long(finished):
    text = ParsedPage((finished / "report.html").read_text()).text
    assert "Task classification of Survived, 2 classes: died, survived" in text
    assert (
        "Data titanic; 713 training, 178 validation rows; columns PassengerId, Pclass, Name, Sex and "
        in text
    )
    assert re.search(
        r"Model [\d,]{5,} parameters, from random weights Shape layers 1, hidden size 32, ", text
    )
    assert re.search(r"heads 2, vocabulary [\d,]+ Tokenizer byte-level BPE, [\d,]+ tokens", text)
    assert re.search(r"Training 4 steps \(0.0\d+ epochs\), [\d,]+ tokens in \d+ s", text)


def test_weights_that_were_loaded_are_named_with_their_number_and_what_of_them_is_trained(folder):
    inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
    facts = inputs["facts"] | {"parameters": 22_800_000, "trainable_parameters": 98_304}
    choices = inputs["choices"] | {"model/size": "nano", "model/adapter": "lora"}
    parents = [{"kind": "pretrained", "of": "/home/someone/models/all-minilm"}]
    inputs |= {"facts": facts, "choices": choices, "parents": parents}
    outcome = json.loads((folder / "manifest.json").read_text())["outcome"] | {
        "parameters": 22_713_216
    }
    change(folder / "manifest.json", inputs=inputs, outcome=outcome)
    text = parsed(folder).text
    assert "bert, 22.7 M parameters, from models/all-minilm, on titanic" in text
    assert (
        "22,713,216 parameters, 98,304 of them trained (0.4 %), adapter lora, from models/all-minilm"
        in text
    )


def test_the_report_says_of_evaluations_what_the_terminal_said(finished):
    text = ParsedPage((finished / "report.html").read_text()).text
    logged = (finished / "stderr.txt").read_text()
    (loss,) = re.findall(r"step 2/4 .*valid/loss (\d\.\d{4})", logged)
    assert f"Itself at step 2, the first evaluation: loss {loss}" in text
    assert re.search(
        r"Weights of the best of 2 evaluations by valid/loss, at step [24] of 4\.", text
    )


@pytest.mark.parametrize(("name", "title"), [("run", "run"), ("bert-rungs", "bert-rungs: run")])
def test_the_title_names_the_folder_unless_the_run_has_its_name(folder, name, title):
    change(folder / "manifest.json", name=name)
    assert f"<title>{title}</title>" in write_run_report(folder).read_text()


def test_averages_over_classes_are_named(folder):
    assert "precision of survived" in parsed(folder).text
    inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
    change(
        folder / "manifest.json", inputs=inputs | {"facts": inputs["facts"] | {"num_classes": 3}}
    )
    text = parsed(folder).text
    for title in (
        "precision, weighted average",
        "F1, macro average",
        "F1, micro average",
        "ROC AUC, macro average",
    ):
        assert title in text


def test_mistakes_of_a_regression_are_its_largest_errors(folder):
    assert "Most confident mistakes" in parsed(folder).text
    with (folder / "mistakes.csv").open("w") as file:
        csv.writer(file).writerows(
            [("id", "text", "true", "predicted", "error"), ("1", "x", "2", "5", "3")]
        )
    assert "Largest errors" in parsed(folder).text


def test_the_report_is_a_function_of_the_folder(finished, capsys):
    written = (finished / "report.html").read_bytes()
    assert main([str(finished), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"reports": [str(finished / "report.html")]}
    assert (finished / "report.html").read_bytes() == written


def test_a_hostile_folder_is_shown_as_text(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"] |= {
        "messages": [HOSTILE],
        "overrides": [HOSTILE],
        "choices": {"model": HOSTILE, HOSTILE: "x"},
    }
    attempt = manifest["attempts"][0] | {"error": HOSTILE, "warnings": [HOSTILE], "host": HOSTILE}
    fields = {
        "attempts": [attempt],
        "git": {"commit": HOSTILE, "dirty": HOSTILE},
        "inputs": manifest["inputs"],
    }
    change(folder / "manifest.json", name=f"{HOSTILE}\u202e\x1b]0;x", status="FAILED", **fields)
    metrics = json.loads((folder / "metrics.json").read_text())
    reference = {name: {HOSTILE: 1.0, "loss": None} for name in ("student", "teacher")}
    change(
        folder / "metrics.json",
        baselines={HOSTILE: metrics["baselines"]["majority"]},
        reference=reference,
    )
    for name, width in (("mistakes.csv", 5), ("per_class.csv", 6)):
        with (folder / name).open("w") as file:
            csv.writer(file).writerows([[HOSTILE] * width] * 3)
    (folder / "samples.json").write_text(
        json.dumps([{"prompt": HOSTILE, "text": HOSTILE, "end": HOSTILE}])
    )
    (folder / "plots" / f"{HOSTILE.replace('/', '')}.png").write_bytes(
        (folder / "plots/confusion.png").read_bytes()
    )
    page = parsed(folder)
    assert "script" not in page.tags
    assert page.handlers == []
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert page.text.count("alert(1)") > 20
    assert "\u202e" not in page.text


def test_numbers_that_are_not_finite_are_named(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    change(
        folder / "metrics.json",
        metrics=dict.fromkeys(metrics["metrics"]),
        evaluations=[[2, None], [4, None]],
    )
    text = parsed(folder).text
    assert "No evaluation was finite." in text
    assert "not finite" in text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", b'{"steps": 4}', "metrics.json"),
        ("run.lock", b"[" * 10**6, "run.lock"),
        ("mistakes.csv", b"a,b\n1\n", "mistakes.csv:1: expected 5 columns, got 2"),
        ("mistakes.csv", b'a,b,c,d,"' + b"x" * 200_000, "mistakes.csv:1: field larger"),
        ("per_class.csv", b"\xff\xfe", "per_class.csv: not UTF-8"),
        ("samples.json", b'[{"prompt": 1}]', "samples.json"),
        ("verify.json", b"{}", "verify.json"),
        ("reproduction.json", b"null", "reproduction.json"),
        ("rounds.json", b'{"done": [1]}', "rounds.json"),
        (
            "plots/confusion.png",
            b"<svg onload=alert(1)>" * 3,
            "plots/confusion.png: not a PNG file",
        ),
        (
            "checkpoints/step-00000004/model.safetensors",
            b"short",
            "step-00000004: model.safetensors has 5 bytes",
        ),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_reported(folder, name, content, said):
    (folder / name).write_bytes(content)
    text = parsed(folder).text
    assert "Damaged files." in text
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
    with (folder / "metrics.json").open("wb") as file:
        file.truncate(100 * 2**20)
    (folder / "mistakes.csv").unlink()
    (folder / "mistakes.csv").symlink_to("/etc/passwd")
    tracemalloc.start()
    page = parsed(folder)
    assert tracemalloc.get_traced_memory()[1] < 80 * 2**20
    tracemalloc.stop()
    assert "metrics.json: larger than" in page.text
    assert "mistakes.csv: cannot be opened as a regular file" in page.text
    assert "root:" not in page.text
    assert (folder / "report.html").stat().st_size < 10**6


@pytest.mark.parametrize(
    ("content", "code"), [(None, 66), ('{"format": 2', 65), ('{"format": 9}', 65)]
)
def test_without_a_manifest_that_can_be_read_there_is_one_line(folder, capsys, content, code):
    (folder / "manifest.json").unlink()
    if content is None:
        shutil.rmtree(folder)
    else:
        (folder / "manifest.json").write_text(content)
    assert main([str(folder)]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_happened_since_is_in_the_report_of_an_older_run(folder, capsys):
    attempt = json.loads((folder / "manifest.json").read_text())["attempts"][0]
    change(
        folder / "manifest.json",
        status="PREEMPTED",
        attempts=[attempt | {"warnings": ["disk almost full"]}],
    )
    (folder / "metrics.json").unlink()
    (folder / "verify.json").write_text('{"format": 1, "steps": [2, 4], "difference": ""}')
    assert main([str(folder), f"out={folder / 'other.html'}"]) == 0
    text = ParsedPage((folder / "other.html").read_text()).text
    assert "interrupted" in text
    assert "disk almost full" in text
    assert "bit for bit, up to step 4 of 4." in text
    assert f"mlxlab train hydra.run.dir={folder} resume=auto" in text
    assert "validation accuracy" in text  # of the newest checkpoint
    assert re.search(r"On the \d+ validation rows; higher is better", text)
    assert "chose the best of 2 evaluations" in text
    assert "Baselines and classes. Not compared, without a final evaluation" in text
    assert "which says little without a baseline" in text
    assert "mlxlab predict " in text
    assert "mlxlab generate" not in text


def test_a_run_that_fails_is_reported_as_far_as_it_got(tmp_path):
    overrides = tiny_overrides(
        "trainer.max_steps=40", "trainer.learning_rate=1e12", "trainer.max_nonfinite_steps=2"
    )
    overrides.remove("~callbacks.report")
    done = run(*overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode != 0
    text = ParsedPage((tmp_path / "run" / "report.html").read_text()).text
    assert "failed" in text
    assert "Not finished. " in text
    assert "bert on titanic" in text


def test_a_run_that_stops_before_its_first_log_line_is_reported(tmp_path):
    overrides = tiny_overrides(
        "trainer.eval_every=1",
        "trainer.log_every=100",
        "trainer.learning_rate=1e-12",
        "callbacks.early_stopping.patience=1",
    )
    overrides.remove("~callbacks.report")
    done = run(*overrides, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "STATUS.DONE").exists()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] < 40
    assert "valid/loss" in ParsedPage((tmp_path / "report.html").read_text()).text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_a_browser_shows_the_report_without_overflow_and_requests(folder, tmp_path, width, scheme):
    change(
        folder / "manifest.json", name="a_name_that_is_much_too_long_for_a_line_of_390_pixels" * 2
    )
    shown = show(write_run_report(folder), tmp_path / "profile", width=width, scheme=scheme)
    assert shown.scroll_width == width
    assert [url for url in shown.requests if not url.startswith(("data:", "file:"))] == []


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_on_a_phone_the_tables_of_a_report_fit_the_page(folder, tmp_path):
    with (folder / "mistakes.csv").open("w") as file:
        head = ("id", "text", "true", "predicted", "probability")
        csv.writer(file).writerows([head, ["1", "x" * 300, "a" * 60, "b" * 60, "0.9"]])
    fits, beyond, scrolls = evaluate(
        write_run_report(folder), tmp_path / "profile", BEYOND, width=390
    )
    assert fits
    assert beyond == []
    assert scrolls[:2] + scrolls[3:5] == [False] * 4  # the other one is folded
