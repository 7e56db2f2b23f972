"""`info run=`: what a run was, how it ended, where it stands; damaged and hostile folders are one line."""

import json
import re
import shutil

import pytest
import yaml

from mlxlab.cli import train
from mlxlab.cli.info import main
from mlxlab.experiment.description.run import describe_run
from mlxlab.experiment.description.text import as_text
from mlxlab.experiment.run_report.run_files import read_run_files
from mlxlab.experiment.run_report.write import run_page
from mlxlab.html.page import render_page
from support.html_pages import ParsedPage
from support.processes import run, tiny_overrides


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described") / "run"
    overrides = tiny_overrides(
        "trainer.max_steps=4", "trainer.eval_every=2", "trainer.learning_rate=0.00123"
    )
    overrides.append("name='customer age'")
    done = run(*overrides, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def change(folder, **fields):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_finished_run_is_explained(finished, capsys):
    assert main([f"run={finished}"]) == 0
    text = capsys.readouterr().out
    assert "DONE: ended" in text
    assert "step 4 of at most 4 steps" in text
    assert "trainer.learning_rate=0.00123" in text
    assert f"\"name='customer age'\" hydra.run.dir={finished}\n" in text, "as a shell reads it"
    assert main([str(finished), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["changed"]["keys"]["trainer.learning_rate"][1] == 0.00123
    assert described["changed"]["options"]["tracking"] == "none"
    assert "seed" not in described["changed"]["keys"]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert (described["metrics"], described["best_step"]) == (
        metrics["metrics"],
        metrics["best_step"],
    )
    sizes = {each["step"]: each["nbytes"] for each in described["checkpoints"]}
    for step, nbytes in sizes.items():
        files = (finished / "checkpoints" / f"step-{step:08d}").iterdir()
        assert nbytes == sum(path.stat().st_size for path in files if path.name != "manifest.json")
    assert list(sizes) == [4, 2]
    assert described["next"] == []
    described["changed"]["options"]["data/tokenizer"] = "bpe"
    assert " data/tokenizer=bpe " in as_text(described).replace("\n", " ")
    described["changed"]["keys"]["model.pretrained"] = [None, "smollm2.gguf"]
    assert " data/tokenizer=bpe " not in as_text(described).replace("\n", " ")
    assert "(tokenizer: that of model.pretrained)" in as_text(described)
    described["position"]["limits"]["max_steps"] = 3
    assert "step 4, past the limit of 3 steps, " in as_text(described)


def test_a_file_in_place_of_a_run_folder_is_called_a_file(tmp_path, capsys):
    (tmp_path / "model.gguf").touch()
    assert main([f"run={tmp_path}/model.gguf"]) == 66
    assert capsys.readouterr().err == f"{tmp_path}/model.gguf: a file, expected a run folder\n"


def test_a_killed_run_is_shown_with_where_it_stands_and_how_to_continue(folder, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    attempt = manifest["attempts"][0] | {
        "status": "RUNNING",
        "process_start": 1.0,
    }  # of another process
    change(folder, status="RUNNING", attempts=[attempt])
    (folder / "metrics.json").unlink()
    (folder / "checkpoints" / "step-00000004" / "model.safetensors").write_bytes(b"short")
    before = sorted(folder.rglob("*"))
    assert main([f"run={folder}"]) == 0
    text = capsys.readouterr().out
    assert "DEAD: ended without saving: killed, or" in text
    assert re.search(r"\(began .*, took 0:", text), "it has ended"
    page = ParsedPage(render_page(run_page(read_run_files(folder)))).text
    assert re.search(r"UTC \d+ DEAD ", page), "in the table of attempts"
    assert "damaged: model.safetensors has 5 bytes" in text
    assert "valid/accuracy" in text
    assert f"train hydra.run.dir={folder} resume=auto" in text
    assert sorted(folder.rglob("*")) == before


def test_a_run_killed_before_its_first_checkpoint_names_the_command_that_begins_it(folder, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    attempt = manifest["attempts"][0] | {"status": "RUNNING", "process_start": 1.0}
    change(folder, status="RUNNING", attempts=[attempt])
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()  # a first save that was not finished
    assert main([f"run={folder}"]) == 0
    [line] = [text for text in capsys.readouterr().out.splitlines() if text.startswith("next: ")]
    assert "trainer.max_steps=4 trainer.eval_every=2" in line
    assert "resume=auto" not in line
    assert train.main([f"hydra.run.dir={folder}", "resume=auto"]) == 76
    assert "ended before the first checkpoint" in capsys.readouterr().err


def test_the_time_of_a_run_is_that_of_all_attempts(folder, capsys):
    first = json.loads((folder / "manifest.json").read_text())["attempts"][0] | {
        "start": 1e9,
        "end": 1e9 + 30,
    }
    second = first | {"start": 1e9 + 100, "end": 1e9 + 3700}
    refused = first | {
        "start": 1e9 + 9000,
        "end": 1e9 + 9002,
        "status": "FAILED",
        "error": "no",
        "trained": False,
    }
    change(folder, attempts=[first, second, refused])
    assert main([f"run={folder}"]) == 0
    assert ", took 1:01:40: 2 attempts, 1:00:30 of work)\n" in capsys.readouterr().out
    assert as_text(
        describe_run(folder) | {"attempts": [first | {"end": 1e400}]}
    )  # also of a hostile manifest


def test_the_error_is_that_of_the_attempt_that_decided_the_status(folder, capsys):
    first = json.loads((folder / "manifest.json").read_text())["attempts"][0]
    refused = first | {"status": "FAILED", "error": "seed=9: cannot change", "trained": False}
    change(folder, attempts=[first, refused])
    assert main([f"run={folder}"]) == 0
    assert "cannot change" not in capsys.readouterr().out, "the run is done"
    change(folder, status="FAILED", attempts=[first | {"status": "DEAD"}, refused])
    assert main([f"run={folder}"]) == 0
    assert "FAILED: failed (began " in (text := capsys.readouterr().out)
    assert ": seed=9: cannot change\n" in text


def test_a_run_that_ended_before_training_names_the_command_that_begins_it(folder, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["inputs"], manifest["outcome"]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "PREEMPTED"}))
    shutil.rmtree(folder / "checkpoints")
    assert main([f"run={folder}"]) == 0
    [line] = [text for text in capsys.readouterr().out.splitlines() if text.startswith("next: ")]
    assert "trainer.max_steps=4 trainer.eval_every=2" in line
    assert line.endswith(f"hydra.run.dir={folder}")
    assert "resume" not in line


@pytest.mark.parametrize(
    ("code", "words"), [(130, "by Ctrl-C (SIGINT)"), (143, "by SIGTERM"), (140, "by a signal")]
)
def test_a_stopped_run_names_the_signal(folder, capsys, code, words):
    attempt = json.loads((folder / "manifest.json").read_text())["attempts"][0]
    change(
        folder, status="PREEMPTED", attempts=[attempt | {"status": "PREEMPTED", "exit_code": code}]
    )
    assert main([f"run={folder}"]) == 0
    assert f"PREEMPTED: was stopped {words} (" in capsys.readouterr().out, "of tracking=none"
    tracked = {"_target_": "mlxlab.tracking.journal.Journal", "experiment": "mlxlab"}
    config = folder / "inference" / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"tracking": tracked}))
    assert main([f"run={folder}"]) == 0
    assert f"PREEMPTED: was stopped {words}; in MLflow it is KILLED (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("manifest.json", None, 66),
        ("manifest.json", '{"format": 2', 65),
        ("manifest.json", '{"format": 9}', 65),
        ("metrics.json", '{"steps": 4}', 65),
        ("inference/config.yaml", "seed: 0\n", 65),
        ("inference/config.yaml", "model: {_target_: os.system}\n", 77),
    ],
)
def test_a_damaged_folder_is_one_line(folder, capsys, name, content, code):
    path = folder / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert main([f"run={folder}"]) == code
    out, err = capsys.readouterr()
    assert not out
    assert str(path) in err
    assert err.count("\n") == 1


def test_text_from_a_manifest_controls_no_terminal_and_chooses_no_file(folder, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    inputs = manifest["inputs"] | {
        "choices": {"model": "../../tmp/model"},
        "overrides": ["name=\x1b[2J"],
    }
    change(folder, name="a\x1b[31m\nb https://me:secret@host/x", inputs=inputs)
    assert main([f"run={folder}"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "secret" not in text
    assert "no option of this name: ../../tmp/model" in text


def test_trained_parameters_and_the_adapter_are_named(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"]["facts"]["trainable_parameters"] = 1234
    manifest["inputs"]["choices"]["model/adapter"] = "lora"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    config = yaml.safe_load((folder / "inference" / "config.yaml").read_text())
    config["model"]["adapter"] = {
        "_target_": "mlxlab.models.options.LoRA",
        "rank": 8,
        "alpha": 16.0,
    }
    (folder / "inference" / "config.yaml").write_text(yaml.safe_dump(config))
    line = next(
        line for line in as_text(describe_run(folder)).splitlines() if line.startswith("parameters")
    )
    assert "1,234 of them trained (" in line
    assert line.endswith("adapter lora, rank 8, alpha 16")
