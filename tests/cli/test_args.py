"""Command-line arguments: typed, checked, explained; the commands share one parser."""

import importlib
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from mlxlab.cli import main
from mlxlab.cli.args import describe_options, parse_args, typed_options
from mlxlab.errors import ConfigError

SOURCE = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mlxlab.constraints import Ge


@dataclass(frozen=True)
class ExampleOptions:
    """Options.

    Args:
        run: a folder.
        count: how many.
    """

    run: Path
    count: Annotated[int, Ge(1)] = 3
    mode: Literal["first", "last"] = "first"
    names: list[str] | None = None
    flag: bool = False
'''


@pytest.fixture(scope="module")
def options_class(tmp_path_factory):
    folder = tmp_path_factory.mktemp("args")
    (folder / "args_example.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("args_example").ExampleOptions


def test_arguments_become_values_of_their_types(options_class):
    args = ["run=a/b", "count=4", "flag=true", "names=[x,y]", "free"]
    options, further = parse_args(args, options_class, names=(0, 1))
    assert options == options_class(Path("a/b"), 4, "first", ["x", "y"], True)
    assert further == ["free"]


def test_a_path_starts_in_the_home_folder_after_a_tilde(options_class, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse_args(["run=~/a"], options_class)[0].run == Path("/home/somebody/a")


def test_unknown_arguments_are_forwarded_to_another_parser(options_class):
    assert parse_args(["run=a", "model=bert", "-m"], options_class, forward="")[1] == ["model=bert", "-m"]
    assert parse_args(["run=a", "data.x=1"], options_class, forward="data.")[1] == ["data.x=1"]
    with pytest.raises(ConfigError, match="model=bert: unknown key"):
        parse_args(["run=a", "model=bert"], options_class, forward="data.")


def test_typed_options_give_the_same_options(options_class):
    options, _ = parse_args(["run=a", "mode=last"], options_class)
    assert typed_options(options) == ["run=a", "mode=last"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["count=4"], "run=...: missing"),
        (["run=a", "cuont=4"], "cuont=4: unknown key; did you mean count?"),
        (["run=a", "count=0"], "count=0: expected a whole number >= 1, got 0"),
        (["run=a", "count=\u00b2"], "expected a whole number"),
        (["run=a", "count=" + "9" * 5000], "expected a whole number"),
        (["run=a", "mode=fist"], "did you mean first?"),
        (["run=a", "flag=maybe"], "expected true or false"),
        (["run=a", "run=b"], "run is given twice"),
        (["run="], "run=: expected a path"),
        (["run=a", "count"], "count: expected count=..."),
        (["run=a", "free"], "expected 0 arguments without `=`, got 1: free"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(options_class, args, message):
    with pytest.raises(ConfigError) as caught:
        parse_args(args, options_class)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nproc=\u00b2", "model=bert"], "expected a whole number >= 1"),
        (["model=bert"], "nproc=...: missing"),
        (["nproc=2", "-m"], "-m: launch starts a single run"),
        (["nproc=2", "backend=rng"], "did you mean ring?"),
    ],
)
def test_launch_refuses_what_it_cannot_start(args, message, capsys):
    assert main.main(["launch", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    "args",
    [["suite=saving", "compare_with=torch"], ["suite=tracking", "x=1"], ["suite=steps", "compare_with=jax"], []],
)
def test_a_benchmark_refuses_options_it_does_not_have(args):
    with pytest.raises(ConfigError):
        benchmarks.parse(args)


@pytest.mark.parametrize("verb", [verb for verb in main.verbs() if verb != "train"])
def test_every_command_lists_its_options(verb, capsys):
    assert main.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"    mlxlab {verb} " in out
    assert f"\nOptions of `{verb}" in out


def test_the_description_of_options_has_defaults_types_and_meanings(options_class):
    assert "count=3" in describe_options(["args_example.ExampleOptions"])
    assert "a whole number >= 1; how many." in describe_options(["args_example.ExampleOptions"])
