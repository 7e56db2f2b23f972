"""Shell completion of `mlxlab`: what can follow a line, and the scripts for the shells."""

import shutil
import subprocess
import sys

import pytest

from mlxlab.cli.completion import SHELLS
from mlxlab.cli.main import main, subcommands
from support.processes import environment


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("mlxlab ", list(subcommands())),
        ("mlxlab tr", ["train", "translate", "trial"]),
        (
            "mlxlab train model=",
            ["model=bert", "model=cnn_hybrid", "model=mlx_lm", "model=transformer"],
        ),
        ("mlxlab train model=bert trainer.ep", ["trainer.epochs="]),
        ("mlxlab lr_find trainer.ep", ["trainer.epochs="]),
        ("mlxlab runs l", ["list"]),
        ("mlxlab runs list sort=loss s", ["status=", "sweep="]),
        ("mlxlab export gguf dtype=", ["dtype=float32", "dtype=float16"]),
        ("mlxlab kernels build again=", ["again=true", "again=false"]),
        ("mlxlab doctor ", ["timeout=", "--json", "--help"]),
        ("mlxlab evaluate run=outputs/a", []),
        ("mlxlab predict on_error=", ["on_error=strict", "on_error=skip"]),
        ("mlxlab nonsense ", []),
    ],
)
def test_a_line_is_completed(line, completions, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == completions


def test_bash_completes_the_installed_program(tmp_path):
    """`mlxlab completion install` writes a file that bash reads once, whatever else is in it."""
    program = tmp_path / "mlxlab"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom mlxlab.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    (tmp_path / ".bashrc").write_text("alias mine=true")
    script = """
        mlxlab completion install bash > /dev/null && mlxlab completion install bash > /dev/null || exit 3
        . ~/.bashrc
        complete -p mlxlab > /dev/null || exit 4
        for COMP_LINE in "mlxlab train model=b" "mlxlab verif"; do
            COMP_POINT=${#COMP_LINE}
            _mlxlab
            printf "<%s>" "${COMPREPLY[@]}"
        done
    """
    env = environment() | {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    env = {key: value for key, value in env.items() if not key.startswith("XDG_")} | {
        "HOME": str(tmp_path)
    }
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (
        0,
        "<bert ><verify >",
    )  # bash takes `=` for the end of a word
    lines = (tmp_path / ".bashrc").read_text().splitlines()
    assert (lines[0], len(lines)) == ("alias mine=true", 2)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_correct_for_its_shell(shell, capsys):
    assert main(["completion", "show", shell]) == 0
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = capsys.readouterr().out
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("SHELL", "/bin/fsh")
    assert main(["completion", "install"]) == 2
    assert capsys.readouterr().err == "fsh: expected one of bash, zsh, fish; did you mean fish?\n"


@pytest.mark.parametrize(
    "args", [[], ["nonsense"], ["query=csh"], ["install=bash", "query=bash"]], ids=" ".join
)
def test_a_wrong_request_for_completion_is_one_line(args, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "mlxlab train x")
    assert main(["-sc", *args]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
