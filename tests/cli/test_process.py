"""The process of a command: missing packages and paths, closed streams, interrupts while it is imported, its end."""

import builtins
import gc
import json
import runpy
import subprocess
import sys

import pytest

from mlxlab.checkpoint.names import find_resumed_run
from mlxlab.checkpoint.store import load_named
from mlxlab.cli import command as commands
from mlxlab.cli.app import run_subcommand
from mlxlab.cli.main import main
from mlxlab.cli.train import read_flags
from mlxlab.distillation.load_teachers import TeacherLoader
from mlxlab.distillation.options import NO_DISTILLATION
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.extensions.example_losses.selection import LossSelection
from mlxlab.inference.restore import find_run_dir, restore_from
from mlxlab.models.pretrained.load import resolve
from support.processes import ROOT, environment


@pytest.mark.parametrize("owns_process", [True, False])
def test_a_process_that_ends_does_not_search_its_garbage(owns_process, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "x"])
    before = gc.get_freeze_count()
    assert run_subcommand(None if owns_process else ["x"], act=len, show_help=str) == 1
    frozen = gc.get_freeze_count() > before
    gc.unfreeze()
    assert frozen == owns_process


def test_another_python_than_that_of_the_installation_is_one_line():
    script = ROOT / "scripts" / "train.py"
    command = [sys.executable, "-S", script, "experiment=titanic"]  # -S: without packages
    ended = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert ended.returncode == 69
    (line,) = ended.stderr.splitlines()
    assert "has no package hydra" in line
    assert ". .venv/bin/activate" in line


FILES = [ROOT / "scripts" / "train.py", ROOT / "src" / "mlxlab" / "__main__.py"]


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_script_exits_with_130(file, monkeypatch):
    load = builtins.__import__

    def load_other(name, *args):
        return (interrupt if "mlxlab" in name else load)(name, *args)

    monkeypatch.setattr(builtins, "__import__", load_other)
    monkeypatch.setenv("PYTHONPATH", "")  # which train.py sets
    monkeypatch.setattr("sys.path", [])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:  # The latter would end pytest.
        runpy.run_path(str(file), run_name="__main__")
    assert repr(stop.value) == "SystemExit(130)"


def test_the_installed_command_exits_with_130(monkeypatch, capsys):
    monkeypatch.setattr(commands.importlib, "import_module", interrupt)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        raise SystemExit(main(["info"]))
    assert repr(stop.value) == "SystemExit(130)"
    assert capsys.readouterr().err == "interrupted\n"


def in_shell(command):
    """Runs a command by a shell; returns its exit code and the lines on standard error."""
    shell = f"{sys.executable} -m mlxlab {command}"
    done = subprocess.run(
        ["bash", "-c", shell], env=environment(), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is a device of Linux")
@pytest.mark.parametrize("command", ["", "predict --help", "kernels info --json"])
def test_a_full_disk_behind_standard_output_is_one_line(command):
    code, [line] = in_shell(f"{command} > /dev/full")
    assert (code, line) == (74, "standard output: No space left on device")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_stream_costs_what_is_written_to_it_alone(closed):
    assert in_shell(f"kernels info {closed}") == (0, [])


def test_a_run_folder_with_a_name_that_no_system_has_is_not_found():
    for command in ("info", "verify", "reproduce"):
        code, [line] = in_shell(f"{command} run={'a' * 300}")
        assert code == 66, command
        assert line.endswith("File name too long")


def doctor(folder, *args, packages=None, **variables):
    """(exit code, check -> finding); `packages` maps files of packages that hide the installed ones to their code."""
    for name, code in (packages or {}).items():
        path = folder / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    path = [str(folder / "packages"), *filter(None, sys.path)]
    env = environment() | {"PYTHONPATH": ":".join(path), **variables}
    command = [sys.executable, "-m", "mlxlab", "doctor", "--json", *args]
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stderr == ""
    return done.returncode, {each["check"]: each for each in json.loads(done.stdout)}


def test_a_crash_of_mlx_is_reported_beside_all_else(tmp_path):
    crash = {"mlx/__init__.py": "", "mlx/core.py": "import os; os.kill(os.getpid(), 11)"}
    code, findings = doctor(tmp_path, packages=crash, CXX="no-such-compiler")
    assert code == 69
    faults = {name: each["status"] for name, each in findings.items() if each["status"] != "ok"}
    assert faults == {"MLX": "error", "compiler": "warning"}
    assert findings.keys() - faults == {"Python", "packages", "config files"}
    assert "-11" in findings["MLX"]["value"]


PATHS = ["~nobody9/run", "~nobody9", "n" * 300, "n" * 300 + "/a/best", "n" * 300 + ".gguf"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "read",
    [
        lambda path, folder: load_named(path, folder),
        lambda path, folder: LossSelection("hardest", 50, "mean", path).chosen(0),
        lambda path, folder: restore_from(folder / path),
        lambda path, folder: resolve(path),
    ],
    ids=["resume", "data.select.source", "run", "model.pretrained"],
)
def test_a_path_that_cannot_exist_is_not_found(path, read, tmp_path):
    with pytest.raises(InputNotFoundError):
        read(path, tmp_path)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_cannot_exist_is_no_run_or_folder(path, tmp_path):
    assert find_resumed_run(path) is None
    assert find_run_dir(TeacherLoader(NO_DISTILLATION, None, tmp_path)._local_path(path)) is None
    with pytest.raises(ConfigError, match="not a folder of config files"):
        read_flags(["--config-dir", path])
