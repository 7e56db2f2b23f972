"""The overview of commands, their help and JSON: they import little, and the help covers all of conf/."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mlxlab.extensions
from mlxlab.cli import main as dispatcher
from mlxlab.cli.command import _signatures
from mlxlab.cli.main import command_module, subcommands
from mlxlab.cli.train import show_help
from mlxlab.config.option_files import groups
from mlxlab.config.paths import conf_dir
from support.processes import environment
from support.sweep_jobs import checked_config

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"mlflow", "pandas", "transformers", "mlx", "sklearn", "matplotlib", "tokenizers", "numpy"}

PROBE = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def probe(*argv):
    command = [sys.executable, "-c", PROBE, str(ROOT / "scripts" / "train.py"), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, *json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("args", "expected", "text", "unused"),
    [
        (["-h"], 0, "trainer.learning_rate=", {"hydra", "omegaconf", "antlr4"}),
        (["--cfg", "job"], 0, "_target_: mlxlab.training.trainer.Trainer", set()),
        (["trainer.learning_rte=1"], 2, "", set()),
    ],
)
def test_help_a_shown_config_and_an_error_import_nothing_heavy(args, expected, text, unused):
    out, code, modules = probe(*args)
    assert code == expected
    assert text in out
    assert not (HEAVY | unused) & set(modules)


def test_help_lists_every_group_and_option_with_its_description():
    printed = show_help([]).splitlines()
    described = [line[6:].split() for line in printed if line[4:6] in ("* ", "  ")]
    for group, options in groups([conf_dir()]).items():
        assert f"  {group}=" in printed
        for option, description in options.items():
            assert [option, *description.split()] in described


def test_help_shows_the_keys_of_another_choice():
    assert "model.kernel_sizes=" not in show_help([])
    assert "model.kernel_sizes=" in show_help(["model=cnn_hybrid"])
    assert "trainer.schedule.decay_fraction=" in show_help(["trainer/schedule=wsd"])
    distilled = show_help(["trainer=distill"])  # It extends another option, as its tokenizer does.
    for key in ("trainer.distillation.rounds=", "trainer.epochs=", "data.tokenizer.min_frequency="):
        assert key in distilled
    text = show_help(["experiment=instruct_smollm2", "trainer=simple", "model/size=tiny"])
    assert "data.templates=" not in text
    assert "trainer.step.accumulate=" not in text
    for key in ("data.loss_on=assistant", "trainer.max_steps=30"):
        assert f"  {key} " in text


def test_examples_of_help_are_valid():
    examples = show_help([]).partition("Examples\n")[2].partition("\n\nFlags")[0].splitlines()
    assert len(examples) >= 5
    for args in map(shlex.split, examples):
        checked_config(args)


def test_the_dispatcher_knows_its_subcommands(capsys):
    assert dispatcher.main([]) == 0
    out = capsys.readouterr().out
    assert {"train", "runs"} <= set(dispatcher.subcommands())
    assert all(f"  {subcommand} " in out for subcommand in dispatcher.subcommands())
    assert dispatcher.main(["trainn"]) == 2
    assert capsys.readouterr().err == "trainn: unknown subcommand; did you mean train?\n"
    assert dispatcher.main(["train", "--help"]) == 0
    assert "mlxlab train [group=option ...]" in capsys.readouterr().out
    assert dispatcher.main(["--version"]) == 0


OVERVIEW = (
    "import sys; from mlxlab.cli.main import main; main([]); print(*sys.modules, file=sys.stderr)"
)


def test_every_command_has_a_line_of_its_own_and_nothing_heavy_is_imported():
    command = [sys.executable, "-c", OVERVIEW]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    for name, heading in subcommands().items():
        assert f"  {name:<15} {heading}" in lines
    modules = {name.partition(".")[0] for name in done.stderr.split()}
    heavy = {"hydra", "omegaconf", "mlx", "numpy", "mlflow", "yaml", "annotated_types", "psutil"}
    assert not modules & heavy


HELLO = '"""Says hello."""\n\n\ndef hello(*names):\n    print("hello", *names)\n    return 7\n'


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """The folder of the commands of an extension, in a package without other commands."""
    folder = tmp_path / "mlxlab" / "extensions" / "greeting" / "commands"
    folder.mkdir(parents=True)
    monkeypatch.setattr(dispatcher, "PACKAGE", tmp_path / "mlxlab")
    monkeypatch.setattr(mlxlab.extensions, "__path__", [str(folder.parents[1])])
    return folder


def test_a_command_of_an_extension_is_found_by_its_name(extension):
    (extension / "hello.py").write_text(HELLO)
    (extension / "helper.py").write_text('"""Is no command."""\n')
    assert dispatcher.subcommands() == {"hello": "Says hello."}
    assert dispatcher.command_module("hello") == "mlxlab.extensions.greeting.commands.hello"
    core = extension.parents[2] / "cli"
    core.mkdir()
    (core / "hello.py").write_text(HELLO)
    assert dispatcher.command_module("hello") == "mlxlab.cli.hello", "no extension replaces it"


WITHOUT_JSON = {
    "train": "its results are files of the run folder: summary.json, metrics.csv",
    "launch": "as train",
    "schema": "prints JSON always",
    "ui": "serves until it is stopped",
}


def options():
    """(name, options) of every action of a command."""
    yield "train", {}
    for name in set(subcommands()) - {"train"}:
        for action, known in _signatures(command_module(name)).items():
            yield f"{name} {action}".strip(), known.keys


OPTIONS = dict(sorted(options()))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_command_has_the_option_json_or_a_reason_not_to(name):
    assert ("json" in OPTIONS[name]) != (name in WITHOUT_JSON), WITHOUT_JSON.get(name)


def test_standard_output_is_one_json_document(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    for command in ("kernels info", "runs sync"):
        assert dispatcher.main([*command.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("package", "args"), [("psutil", ["runs", "list"]), ("numpy", ["example_losses", "top", "{}"])]
)
def test_a_missing_package_costs_one_line_and_the_doctor_names_it(package, args, tmp_path):
    code = f"raise ModuleNotFoundError('missing', name='{package}')"
    (tmp_path / f"{package}.py").write_text(code)
    env = environment() | {"PYTHONPATH": ":".join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "mlxlab", *(arg.format(tmp_path) for arg in args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (69, 1)
    assert f"the package {package} is not installed" in done.stderr
    probe = [sys.executable, "-c", "import mlxlab.cli.doctor, sys; print(*sys.modules)"]
    done = subprocess.run(probe, env=env, capture_output=True, text=True, check=True)
    assert package not in done.stdout.split()
