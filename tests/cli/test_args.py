"""Command-line arguments: typed, checked, explained; the commands share one parser."""

from functools import partial
from pathlib import Path

import pytest

from mlxlab.cli import main
from mlxlab.cli.app import run_subcommand
from mlxlab.cli.command import parse_args, run_command
from mlxlab.errors import ConfigError, DataError

SOURCE = '''
from pathlib import Path
from typing import Annotated, Literal

from mlxlab.schema.constraints import Ge
from mlxlab.terminal.program import command_line


def args_example(
    run: Path,
    count: Annotated[int, Ge(1)] = 3,
    mode: Literal["first", "last"] = "first",
    names: list[str] | None = None,
    flag: bool = False,
    **data: str,
) -> int:
    """Example.

    Args:
        run: a folder.
        count: how many.
    """
    print((run, count, mode, names, flag, data, command_line()))
    return 3


def forwarding(*overrides: str, count: int = 3) -> None: ...
'''
EXAMPLE = "args_example.args_example"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("args")
    (folder / "args_example.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield partial(run_command, "args_example")


def test_arguments_become_values_of_the_types_of_the_parameters(example, capsys):
    args = ["run=a/b", "count=4", "--flag", "names=[x,y]", "data.x=1"]
    command_line = "mlxlab args_example run=a/b count=4 --flag 'names=[x,y]' data.x=1"
    assert example(args) == 3, "the exit code that the function returns"
    values = (Path("a/b"), 4, "first", ["x", "y"], True, {"x": "1"}, command_line)
    assert capsys.readouterr().out == f"{values}\n"
    for args in (["a/b", "count=4"], ["count=4", "a/b"]):  # the required option without its key
        assert example(args) == 3
        assert capsys.readouterr().out.startswith(f"({Path('a/b')!r}, 4, ")
    lists = {"a": ["a"], "a,b": ["a", "b"], "[a, 'b,c']": ["a", "b,c"], "[]": [], '"a b"': ["a b"]}
    for text, names in lists.items():
        assert parse_args(["run=a", f"names={text}"], EXAMPLE)[1]["names"] == names


def test_a_path_starts_in_the_home_folder_after_a_tilde(example, capsys, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    example(["run=~/a"])
    assert "'/home/somebody/a'" in capsys.readouterr().out
    assert example(["run="]) == 2
    assert capsys.readouterr().err == "run=: expected a path\n"


def test_unknown_arguments_are_forwarded_to_another_parser(example):
    names, values = parse_args(["count=4", "model=bert", "-m"], "args_example.forwarding")
    assert (names, values) == (["model=bert", "-m"], {"count": 4})
    with pytest.raises(ConfigError, match=r"^cuont=4: unknown key; did you mean count\?$"):
        parse_args(["cuont=4", "model=bert"], "args_example.forwarding")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 0, ""),
        (DataError("a:1:1: bad"), 65, "a:1:1: bad"),
        (MemoryError(), 69, "out of memory"),
        (OSError(28, "No space", "a/.tmp-7-0a1b2c3d-b.csv"), 74, "a/b.csv: No space"),
    ],
)
def test_every_command_ends_with_one_line_and_the_exit_code_of_its_error(
    error, code, message, capfd
):
    def fail(args):
        raise error

    assert run_subcommand([], act=fail, show_help=lambda args: "", needs_args=False) == code
    assert capfd.readouterr().err.strip() == message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["count=4"], "run=...: missing"),
        (["run=a", "cuont=4"], "cuont=4: unknown key; did you mean count?"),
        (["run=a", "count=\u00b2"], "expected a whole number"),
        (["run=a", "count=" + "9" * 5000], "expected a whole number"),
        (["run=a", "mode=fist"], "expected one of first, last, got fist"),
        (["run=a", "flag=maybe"], "expected true or false"),
        (["run=a", "count"], "count: expected count=..."),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(example, args, message):
    with pytest.raises(ConfigError) as caught:
        parse_args(args, EXAMPLE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        parse_args(["rnu=a", "cuont=4", "mode=fist"], EXAMPLE)
    named = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert named == ["rnu=a", "cuont=4", "mode=fist"], "and run is not missing too"


@pytest.mark.parametrize(
    "subcommand", [subcommand for subcommand in main.subcommands() if subcommand != "train"]
)
def test_every_command_lists_its_options(subcommand, capsys):
    assert main.main([subcommand, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"    mlxlab {subcommand} " in out
    assert "\nOptions" in out
