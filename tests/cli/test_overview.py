"""`mlxlab` without arguments."""

import shlex
import subprocess
import sys

from mlxlab.cli.main import FIRST, TOPICS, command_module, subcommands
from mlxlab.config.hydra.compose import compose
from support.processes import environment
from support.pseudo_terminal import run_in_terminal

PROBE = (
    "import sys; from mlxlab.cli.main import main; main([]); print(*sys.modules, file=sys.stderr)"
)


def test_every_command_is_in_one_topic():
    core = [name for name in subcommands() if command_module(name).startswith("mlxlab.cli.")]
    assert sorted(name for names in TOPICS.values() for name in names) == sorted(core)


def test_every_command_has_a_line_of_its_own_and_nothing_heavy_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment(), capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    for name, heading in subcommands().items():
        assert f"  {name:<15} {heading}" in lines
    modules = {name.partition(".")[0] for name in done.stderr.split()}
    assert not modules & {
        "hydra",
        "omegaconf",
        "mlx",
        "numpy",
        "mlflow",
        "yaml",
        "annotated_types",
        "psutil",
    }


def test_the_first_commands_are_valid():
    for line in FIRST:
        command, *args = shlex.split(line)
        assert command in subcommands()
        if command == "train" and "resume=auto" not in args:
            compose(args)


def test_the_overview_fits_a_terminal():
    screen = run_in_terminal(["-m", "mlxlab"], 80)
    assert screen.code == 0
    assert "\x1b[1mStart\x1b[0m" in screen.lines
    described = [line for line in screen.lines if not line.startswith("  mlxlab")]
    assert max(map(len, described)) <= 80
