"""Width and colours, in real terminals and without one."""

import subprocess
import sys

import pytest

from support.pseudo_terminal import run_in_terminal

FACTS = "from mlxlab import terminal as t; print(t.columns(), t.styled('text', 'red'))"
RED = "\x1b[31mtext\x1b[0m"


@pytest.mark.parametrize(
    ("columns", "variables", "expected"),
    [
        (40, {}, f"40 {RED}"),
        (0, {}, f"80 {RED}"),
        (40, {"COLUMNS": "100", "NO_COLOR": "1"}, "100 text"),
        (40, {"COLUMNS": "wide", "TERM": "dumb"}, "40 text"),
    ],
    ids=["terminal", "unknown width", "NO_COLOR", "dumb"],
)
def test_width_and_colour_are_those_of_the_terminal(columns, variables, expected):
    assert run_in_terminal(["-c", FACTS], columns, variables).text == f"{expected}\n"


def test_a_file_has_no_width_and_no_colours():
    done = subprocess.run([sys.executable, "-c", FACTS], capture_output=True, text=True, check=True)
    assert done.stdout == "None text\n"


def test_an_error_is_red_in_a_terminal():
    error = run_in_terminal(["-m", "mlxlab", "runs", "lsit"], 40)
    assert error.code == 2
    assert error.text == "\x1b[31mlsit: unknown subcommand; did you mean list?\x1b[0m\n"
