"""Shell completion of `mlxlab`, through the script that Hydra writes."""

import subprocess
import sys

import pytest

from mlxlab.cli.main import main, subcommands
from support.processes import environment


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("mlxlab ", list(subcommands())),
        ("mlxlab tr", ["train", "translate", "trial"]),
        ("mlxlab train model=", ["model=bert", "model=cnn_hybrid", "model=mlx_lm", "model=transformer"]),
        ("mlxlab train model=bert trainer.ep", ["trainer.epochs="]),
        ("mlxlab runs list", []),
    ],
)
def test_a_line_is_completed(line, completions, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == completions


def test_bash_completes_the_installed_program(tmp_path):
    """The script runs in bash with a program called mlxlab, as after `eval "$(mlxlab -sc install=bash)"`."""
    program = tmp_path / "mlxlab"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom mlxlab.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = """
        eval "$(mlxlab -sc install=bash)"
        complete -p mlxlab > /dev/null || exit 3
        COMP_LINE="mlxlab train model=" COMP_POINT=19 COMP_WORDS=(mlxlab train model=) COMP_CWORD=2
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    env = environment() | {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (
        0,
        ["model=bert", "model=cnn_hybrid", "model=mlx_lm", "model=transformer"],
    )


@pytest.mark.parametrize("args", [[], ["nonsense"], ["query=csh"], ["install=bash", "query=bash"]], ids=" ".join)
def test_a_wrong_request_for_completion_is_one_line(args, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "mlxlab train x")
    assert main(["-sc", *args]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
