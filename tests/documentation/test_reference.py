"""The generated reference is complete: groups, options, keys, commands, exit codes, Python; so are two more pages."""

import re
import signal
from functools import cache
from importlib import import_module

import yaml
from docs.hooks import generated_pages

import mlxlab
from mlxlab import api, errors
from mlxlab.cli.main import subcommands
from mlxlab.config.option_files import groups
from mlxlab.config.paths import conf_dir
from mlxlab.config.schema.root import TARGET, node_signature
from mlxlab.config.schema.signature import read_signature
from mlxlab.extensions.cloud import run_files
from mlxlab.inference.restore import ENSEMBLE_FILE, THRESHOLDS_FILE
from mlxlab.run import context, verify
from mlxlab.run.context import LOCK
from mlxlab.schema.metric_names import Metric
from mlxlab.tracking.records import FILE
from support.past_run import past_run
from support.processes import ROOT

METRICS, RUN_FOLDER = (
    (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    for name in ("metrics.md", "run_folder.md")
)
MEASURED = r"(?:train|data|throughput|compile|memory|growth|analysis|example_losses)/[a-z_]+"  # prefixes of metrics


@cache
def configuration():
    return generated_pages()["reference/configuration.md"]


def rows(text):
    """What the tables have in code in their first column."""
    return set(re.findall(r"^\| `([^`]+)`", text, re.M))


def files():
    """(group, path of the node, values) of every file of conf/ that is an option with keys of its own."""
    for file in sorted(conf_dir().rglob("*.yaml")):
        group = file.relative_to(conf_dir()).parent.as_posix()
        text = file.read_text(encoding="utf-8")
        if "# @package _global_" not in text:
            package = re.search(r"^# @package (\S+)", text, re.M)
            path = package[1] if package else "" if group == "." else group.replace("/", ".")
            yield group, path, yaml.safe_load(text) or {}


def nodes(path, values):
    """(path, target, values) of everything with a `_target_`."""
    if "_target_" in values:
        yield path, values["_target_"], values
    for key, value in values.items():
        if isinstance(value, dict):
            yield from nodes(f"{path}.{key}".lstrip("."), value)


def test_every_group_and_option_is_in_the_reference():
    text = configuration()
    for group, options in groups([conf_dir()]).items():
        assert f"## `{group}`" in text
        for option in options:
            assert option in text.split(f"## `{group}`")[1].split("\n## ")[0], (group, option)
    for group in ("launcher", "sweeper"):
        for file in (conf_dir() / "hydra" / group).glob("*.yaml"):
            assert file.stem in rows(text.split(f"## `hydra/{group}`")[1])


def test_every_key_is_in_the_reference():
    documented, num_keys = rows(configuration()), 0
    for _, path, values in files():
        for node, target, keys in nodes(path, values):
            for name in node_signature(target, node).keys.keys() & keys.keys():
                key = f"{node}.{name}"
                inner = any(other.startswith(f"{key}.") for other in documented)  # of a component
                is_node = keys[name] is None or isinstance(keys[name], dict)
                assert key in documented or inner or is_node, key
                num_keys += 1
    for name in read_signature(TARGET).keys:
        inner = any(key.startswith(f"{name}.") for key in documented)
        assert name in documented or name in groups([conf_dir()]) or inner, name
    assert num_keys > 200


def test_every_command_is_in_the_reference():
    page = generated_pages()["reference/commands.md"]
    assert re.findall(r"^## `(.*)`$", page, re.M) == [*subcommands()]
    train = page.partition("## `train`")[2].partition("## `")[0]
    assert all(option in train for option in ("--multirun", "--dry-run", "sweep.resume="))
    assert "Groups (" not in train  # which the page on the configuration lists
    for name in ("generate", "predict"):
        section = page.partition(f"## `{name}`")[2].partition("## `")[0]
        assert {"run", "checkpoint", "batch_size"} <= set(re.findall(r"^(\w+)=", section, re.M))


def test_every_exit_code_is_in_the_reference():
    source = (ROOT / "src" / "mlxlab" / "errors.py").read_text()
    defined = {0, 1, 70, *map(int, re.findall(r"exit_code=(\d+)\)", source))}
    defined |= {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    reference = (ROOT / "docs" / "reference" / "exit_codes.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| ([\d, ]+) \|", reference, re.M)
    assert {int(code) for cell in cells for code in cell.split(",")} == defined
    classes = re.findall(r"^\| (\d+) \| `(\w+)` \|", reference, re.M)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if "exit_code" in vars(kind)]
    of_code = [kind for kind in kinds if kind.exit_code not in (0, 70)]
    assert classes == [(str(kind.exit_code), kind.__name__) for kind in of_code]


def test_all_of_the_python_api_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "python_api.md").read_text(encoding="utf-8")
    described = re.findall(r"^::: (.*)$", page, re.M)
    modules = [import_module(path.rpartition(".")[0]) for path in described]
    names = [path.rpartition(".")[2] for path in described]
    assert all(name in vars(module) for name, module in zip(names, modules, strict=True))
    of_api = [value for value in vars(api).values() if isinstance(value, type)]
    assert {kind.__name__ for kind in of_api if kind.__module__ == api.__name__} <= {*names}
    assert {*mlxlab.__all__} - {"__version__"} | {"LoadedModel", "GenerationConfig"} <= {*names}


def test_every_metric_is_documented():
    documented = set(re.findall(r"`([a-z_]+/[\w/<>]+)`", METRICS))
    assert set(Metric.__args__) <= documented
    folders = {"data/titanic"}
    source = "\n".join(file.read_text() for file in (ROOT / "src" / "mlxlab").rglob("*.py"))
    logged = set(re.findall(rf'f?"({MEASURED})"', source)) - folders
    assert len(logged) > 20
    assert logged - groups([conf_dir()]).keys() <= documented


def names_in(pattern):
    """`a.json` and `b.json` of the pattern `(a|b)\\.json`."""
    for names, kind in re.findall(r"\(([a-z_|]+)\)\\\.([a-z]+)", pattern):
        yield from (f"{name}.{kind}" for name in names.split("|"))


def test_every_file_of_a_run_folder_is_documented():
    """Those that are moved with an earlier run or uploaded, and those of a real run."""
    documented = {part for code in re.findall(r"`([^`]+)`", RUN_FOLDER) for part in code.split("/")}
    written = {*context._MOVED, *names_in(run_files.FILES)}
    written |= {FILE, ENSEMBLE_FILE, THRESHOLDS_FILE, verify.FILE, LOCK}
    folders = [past_run(), past_run() / "inference"]
    written |= {path.name for folder in folders for path in folder.iterdir()}
    assert {"run.json", "mistakes.csv"} <= written
    assert written <= documented | {"tokenizer.json"}, written - documented
