"""`info run=`: what a run was, how it ended, where it stands; damaged and hostile folders are one line."""

import json
import shutil

import pytest

from mlxlab.cli import train
from mlxlab.errors import RunInterrupted
from mlxlab.past_runs.collect_record import read_info
from mlxlab.record.run_file import read_run, write_run
from mlxlab.record.run_record import Evaluation, Training
from mlxlab.views.commands import next_commands
from support.commands import command
from support.processes import succeed_here, tiny_overrides

main = command("info")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described") / "run"
    overrides = tiny_overrides(
        "trainer.max_steps=4", "trainer.eval_every=2", "trainer.learning_rate=0.00123"
    )
    overrides.append("name='customer age'")
    succeed_here(*overrides, f"hydra.run.dir={folder}")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def change(folder, **fields):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def kill(folder):
    """Makes the run look as if its process had been killed behind its last checkpoint."""
    record = read_run(folder)
    record.status = record.attempts[0].status = "running"
    record.attempts[0].process_start = 1.0  # that of another process
    record.attempts[0].end = None
    record.training = Training("valid/loss")
    record.evaluation = Evaluation()
    record.is_evaluated = False
    write_run(folder, record)


def next_of(folder):
    return [*next_commands(read_info(folder).view).values()]


def test_a_finished_run_is_explained(finished, capsys):
    assert main([f"run={finished}"]) == 0
    text = capsys.readouterr().out
    assert "finished" in text
    assert "4 steps" in text
    assert "trainer.learning_rate=0.00123" in text
    assert f"\"name='customer age'\" hydra.run.dir={finished}\n" in text, "as a shell reads it"
    assert main([str(finished), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["config"]["trainer"]["learning_rate"] == 0.00123
    written = json.loads((finished / "run.json").read_text())
    assert described["evaluation"] == written["evaluation"]
    assert described["training"]["best_step"] == written["training"]["best_step"]
    sizes = {each["step"]: each["nbytes"] for each in described["checkpoints"]}
    for step, nbytes in sizes.items():
        files = (finished / "checkpoints" / f"step-{step:08d}").iterdir()
        assert nbytes == sum(path.stat().st_size for path in files if path.name != "manifest.json")
    assert list(sizes) == [4, 2]
    assert "resume" not in described["next"]


def test_a_killed_run_is_shown_with_where_it_stands_and_how_to_continue(folder, capsys):
    kill(folder)
    (folder / "checkpoints" / "step-00000004" / "model.safetensors").write_bytes(b"short")
    before = sorted(folder.rglob("*"))
    assert main([f"run={folder}"]) == 0
    text = capsys.readouterr().out
    assert "status     killed" in text
    assert "damaged: model.safetensors has 5 bytes" in text
    assert "accuracy" in text
    assert f"train hydra.run.dir={folder} resume=auto" in text
    assert sorted(folder.rglob("*")) == before


def test_a_run_killed_before_its_first_checkpoint_names_the_command_that_begins_it(folder, capsys):
    kill(folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()  # a first save that was not finished
    [line] = next_of(folder)
    assert "trainer.max_steps=4 trainer.eval_every=2" in line
    assert "resume=auto" not in line
    assert train.main([f"hydra.run.dir={folder}", "resume=auto"]) == 76
    assert "ended before the first checkpoint" in capsys.readouterr().err


def test_a_run_that_ended_before_training_names_the_command_that_begins_it(tmp_path, monkeypatch):
    def stop(*args, **options):
        raise RunInterrupted("stopped", 15)

    monkeypatch.setattr("mlxlab.run.train.build_session", stop)
    folder = tmp_path / "run"
    typed = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")
    assert train.main([*typed, f"hydra.run.dir={folder}", "resume=auto"]) == 143
    [line] = next_of(folder)
    assert "trainer.max_steps=4 trainer.eval_every=2" in line
    assert line.endswith(f"hydra.run.dir={folder}")
    assert "resume" not in line


def test_text_from_a_record_controls_no_terminal(folder, capsys):
    command = json.loads((folder / "run.json").read_text())["command"]
    command |= {"first": ["name=\x1b[2J"]}
    change(folder, name="a\x1b[31m\nb https://me:secret@host/x", command=command)
    assert main([f"run={folder}"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("run.json", None, 66), ("run.json", '{"format": 2', 65), ("run.json", '{"format": 9}', 65)],
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
