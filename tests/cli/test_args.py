"""Command-line arguments: typed, checked, explained; the commands share one parser."""

import importlib
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from mlxlab.cli import launch, main
from mlxlab.cli.args import describe_args, parse_args
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


def test_words_become_values_of_their_types(options_class):
    options, names, rest = parse_args(
        ["run=a/b", "count=4", "flag=true", "names=[x,y]", "free"], options_class, names=(0, 1)
    )
    assert options == options_class(Path("a/b"), 4, "first", ["x", "y"], True)
    assert (names, rest) == (["free"], [])


def test_unknown_words_are_forwarded_where_a_command_has_another_parser(options_class):
    _, names, rest = parse_args(["run=a", "model=bert", "-m"], options_class, forward="")
    assert (names, rest) == ([], ["model=bert", "-m"])
    assert parse_args(["run=a", "data.x=1"], options_class, forward="data.").rest == ["data.x=1"]


@pytest.mark.parametrize(
    ("words", "message"),
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
        (["run=a", "free"], "expected 0 words without `=`, got 1: free"),
    ],
)
def test_a_wrong_word_is_named_with_what_was_expected(options_class, words, message):
    with pytest.raises(ConfigError) as caught:
        parse_args(words, options_class)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words", [["nproc=\u00b2", "model=bert"], ["model=bert"], ["nproc=2", "-m"], ["nproc=2", "backend=rng"]]
)
def test_launch_refuses_what_it_cannot_start(words):
    with pytest.raises(ConfigError):
        launch.parse(words)


@pytest.mark.parametrize(
    "words",
    [["suite=saving", "compare_with=torch"], ["suite=tracking", "x=1"], ["suite=steps", "compare_with=jax"], []],
)
def test_a_benchmark_refuses_options_it_does_not_have(words):
    with pytest.raises(ConfigError):
        benchmarks.parse(words)


@pytest.mark.parametrize(
    "verb", ["compare", "crossvalidate", "evaluate", "generate", "launch", "lr_find", "runs", "verify"]
)
def test_every_command_lists_its_options(verb, capsys):
    assert main.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"    mlxlab {verb} " in out
    assert "\nOptions\n" in out


def test_the_description_of_options_has_defaults_types_and_meanings(options_class):
    assert "count=3" in describe_args(["args_example.ExampleOptions"])
    assert "a whole number >= 1; how many." in describe_args(["args_example.ExampleOptions"])
