"""Help texts in narrow terminals."""

import pytest

from mlxlab.cli.command import command_help
from mlxlab.cli.main import command_module, subcommands
from mlxlab.cli.train import show_help
from mlxlab.terminal.reflow import reflow

TEXT = """Does something, and then something else, and then
it ends.

    mlxlab command option=value another=value

first   a text that is long enough to be wrapped, and goes on
        in a second line
second  short

option_with_a_name_that_is_long=default
                    what it means"""


def test_a_text_that_fits_stays_as_it_is():
    assert reflow(TEXT, 80) == TEXT


def test_paragraphs_and_columns_are_wrapped_and_commands_are_not():
    assert reflow(TEXT, 36).splitlines() == [
        "Does something, and then something",
        "else, and then it ends.",
        "",
        "    mlxlab command option=value another=value",
        "",
        "first   a text that is long enough",
        "        to be wrapped, and goes on",
        "        in a second line",
        "second  short",
        "",
        "option_with_a_name_that_is_long=default",
        "      what it means",
    ]


@pytest.mark.parametrize("name", subcommands())
def test_no_help_text_loses_a_word(name):
    text = show_help([]) if name == "train" else command_help(command_module(name))
    for width in (40, 80):
        fitted = reflow(text, width)
        assert fitted.split() == text.split()
        too_long = [
            line for line in fitted.splitlines() if len(line) > width and " " in line.strip()
        ]
        assert all(
            line.startswith("  ") or line.count(" ") <= 1 or "=" in line for line in too_long
        ), too_long
