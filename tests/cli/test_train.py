"""`train`: folders, sweeps, exit codes. The experiment itself is replaced by a stub."""

import re
import signal
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlxlab.cli.train import main
from mlxlab.errors import DataError, RunInterrupted
from mlxlab.record.run_file import write_run
from mlxlab.run import entry
from mlxlab.run.entry import check_run_to_continue
from support.configs import line, user_config  # noqa: F401
from support.run_records import attempt_of, blank_record


def test_a_run_gets_its_own_folder_by_day_time_and_id(line):
    assert [line("seed=1"), line("seed=1")] == [0, 0]
    folders = sorted((line.project / "outputs").glob("*/*"))
    assert len(folders) == 2
    assert all(len(folder.name.split("-")) == 4 for folder in folders)  # 10-48-31-a1b2c3
    assert line.runs[0][1] in folders
    assert (folders[0] / ".hydra" / "overrides.yaml").read_text() == "- seed=1\n"
    assert Path.cwd() == line.project  # hydra.job.chdir=false


@pytest.mark.parametrize(
    "flags", [["hydra.run.dir=out"], ["-m", "seed=1,2", "hydra.sweep.dir=out"]]
)
def test_paths_are_those_of_the_working_directory_whatever_chdir_says(line, monkeypatch, flags):
    folders = []

    def run(config, folder, **_options):
        folders.append((Path.cwd(), folder))
        return 0.0

    monkeypatch.setattr(entry, "run_experiment", run)
    assert line(*flags, "hydra.job.chdir=true", "tracking=none") == 0, line.err
    out = line.project / "out"
    expected = [out / "0", out / "1"] if "-m" in flags else [out]
    assert folders == [(line.project, folder) for folder in expected]
    assert Path.cwd() == line.project


def test_runs_started_in_the_same_second_share_no_folder(line, monkeypatch):
    noon = SimpleNamespace(now=lambda: datetime(2026, 1, 1, 12))
    monkeypatch.setattr("hydra.core.utils.datetime", noon)
    assert {line() for _ in range(5)} == {0}
    assert len(list((line.project / "outputs" / "2026-01-01").iterdir())) == 5


def test_a_run_resumed_by_its_path_continues_in_its_folder_unless_another_one_is_set(
    line, user_config
):
    run_dir = line.project / "outputs" / "a"
    (run_dir / "checkpoints").mkdir(parents=True)
    mine = user_config("# @package _global_\nhydra:\n  run:\n    dir: outputs/mine\n")
    for path in ("", "/last", "/step-3", "/checkpoints/step-00000003"):
        assert line(f"resume=outputs/a{path}") == 0
        assert line.runs[0][1] == run_dir
    for prefix in ("", "++"):
        assert line("resume=outputs/a", f"{prefix}hydra.run.dir=outputs/fork{len(prefix)}") == 0
        assert line.runs[0][1] == line.project / "outputs" / f"fork{len(prefix)}"
    assert line("resume=outputs/a", *mine) == 0
    assert line.runs[0][1] == line.project / "outputs" / "mine"


@pytest.mark.parametrize("name", ["auto", "last", "step-120"])
def test_the_name_of_a_checkpoint_is_no_path_in_the_current_folder(line, name):
    (line.project / "checkpoints").mkdir()
    assert line(f"resume={name}", "hydra.output_subdir=null") == 0
    assert line.runs[0][1].parent.parent == line.project / "outputs"


def test_a_file_where_the_folder_should_be_is_exit_73(line):
    (line.project / "taken").write_text("")
    for path in ("taken", "taken/in", "/dev/null/x"):
        assert "cannot be created" in line.refuses(f"hydra.run.dir={path}", code=73)


def test_a_sweep_runs_the_grid_of_its_values_in_a_folder_each(line):
    values = ["model=bert,cnn_hybrid", "trainer.learning_rate=1e-4,3e-4"]
    assert line(*values, "tags.for=thesis", "-m", "tracking=none") == 0
    got = [(config.model._target_, config.trainer.learning_rate) for config, _ in line.runs]
    assert [rate for _, rate in got] == [1e-4, 3e-4] * 2
    assert [name.endswith("CnnHybrid") for name, _ in got] == [False, False, True, True]
    [sweep] = (line.project / "multirun").glob("*/*")
    assert [folder for _, folder in line.runs] == [sweep / str(number) for number in range(4)]


def test_every_job_of_a_sweep_is_checked_before_the_first(line):
    err = line.refuses("-m", "seed=1,2,-3", "model=bert,brt", "tracking=none", lines=2)
    assert "model=brt: model has no option brt" in err
    assert "seed=-3: expected a whole number >= 0, got -3" in err


def test_a_sweep_that_makes_no_jobs_is_refused(line):
    assert "the sweep is empty" in line.refuses("-m", "seed=range(0)")
    needed = "an interval needs hydra/sweeper=search"
    assert needed in line.refuses("-m", "seed=interval(0,1)")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=interval(0,1)", "several values: put -m in front"),
        ("seed=tag(log,intervl(1,9))", "cannot be read (Unknown function"),
        ("sweep.dir=x", "unknown key; did you mean hydra.sweep.dir?"),
        ("sweep.resume=", "a value is missing"),
    ],
)
def test_a_mistake_in_a_sweep_has_its_remedy(line, override, message):
    assert f"{override}: {message}" in line.refuses(override)


def test_a_failed_job_is_reported_and_the_others_run_unless_the_sweeper_is_of_hydra(
    line, monkeypatch
):
    def run(config, folder, **_options):
        if config.seed == 1:
            raise DataError("rows.csv:3:5: a number was expected")
        return 0.5

    monkeypatch.setattr(entry, "run_experiment", run)
    sweep = ["-m", "seed=0,1,2", "tracking=none"]
    assert line(*sweep) == 1
    assert "job 1 (seed=1): rows.csv:3:5: a number was expected" in line.err
    assert re.search(r"\| +1 \| failed +\| 1 +\|", line.out)
    assert "3 jobs: 2 finished, 1 failed; " in line.out
    assert "Traceback" not in line.err
    assert line(*sweep, "hydra/sweeper=basic", "hydra/launcher=basic") == 65
    assert line.lines[-1] == "rows.csv:3:5: a number was expected"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("rows.csv:3:5: bad"), 65, "rows.csv:3:5: bad"),
        (RunInterrupted("stopped at step 3", signal.SIGTERM), 143, "stopped at step 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("ours"), 70, "ZeroDivisionError: ours"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(line, monkeypatch, error, code, message):
    def run(config, folder, **_options):
        raise error

    monkeypatch.setattr(entry, "run_experiment", run)
    assert line() == code
    assert line.lines[-1] == message
    assert len(line.lines) == 1 or code == 70, "a bug has a traceback"


def test_cfg_prints_a_config_that_is_not_valid_yet_but_no_unknown_option(line):
    assert line("--cfg", "job", "seed=-1", "data=text_classification") == 0
    assert "source: ???\n" in line.out
    assert "did you mean bert?" in line.refuses("--cfg", "job", "model=brt")


def begin(folder: Path, overrides: list[str] | None = None) -> None:
    attempts = [attempt_of("interrupted")]
    record = blank_record(id="a" * 32, name="a", status="interrupted", attempts=attempts)
    record.has_begun = overrides is not None
    record.command.overrides = overrides or []
    folder.mkdir()
    write_run(folder, record)


@pytest.mark.parametrize(
    ("name", "begun", "code", "text"),
    [
        ("tunned", None, 66, "did you mean {}/tuned?"),
        ("known", {"overrides": ["model=cnn_hybrid"]}, 76, "before the first checkpoint; repeat"),
    ],
)
def test_continuing_a_run_never_trains_the_default_experiment_instead(
    tmp_path, capsys, name, begun, code, text
):
    begin(tmp_path / "tuned", overrides=["seed=1"])
    if begun is not None:
        begin(tmp_path / name, **begun)
    before = sorted(tmp_path.rglob("*"))
    args = [f"hydra.run.dir={tmp_path / name}", "resume=auto", "trainer.max_steps=9"]
    assert main(args) == code
    assert text.format(tmp_path) in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    if begun is not None:
        check_run_to_continue([*args, "model=cnn_hybrid"])  # It says what to train.


def test_a_folder_without_a_run_is_refused_where_the_command_says_nothing_else(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").touch()
    faults = {"missing": "no such folder", "empty": "a folder without a run", "t.csv": "a file"}
    for name, got in faults.items():
        assert main([f"hydra.run.dir={tmp_path}/{name}", "resume=auto"]) == 66
        assert f"{tmp_path}/{name}: {got}" in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    "args", [[], ["nonsense"], ["query=csh"], ["install=bash", "query=bash"]], ids=" ".join
)
def test_a_wrong_request_for_completion_is_one_line(args, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "train x")
    assert main(["-sc", *args]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
