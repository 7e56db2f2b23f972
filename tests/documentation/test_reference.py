"""The generated reference is complete: groups, options, keys, commands, exit codes, Python; so are two more pages."""

import re
import signal
from dataclasses import fields
from functools import cache

import pytest
import yaml
from documentation.exit_codes import exit_codes
from documentation.pages import generated_pages, without_breaks

import mlxlab
from mlxlab import api, errors
from mlxlab.cli.main import main, subcommands
from mlxlab.config.help_index import groups
from mlxlab.config.paths import shipped_conf
from mlxlab.config.schema.root import TARGET, Metric, node_signature
from mlxlab.config.schema.signature import Record, signature
from mlxlab.experiment.cloud import run_files
from mlxlab.experiment.past_run import earlier_run
from mlxlab.experiment.reproduction import reproduce
from mlxlab.experiment.run import LOCK
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.loaded_model import LoadedModel
from mlxlab.inference.restore import ENSEMBLE_FILE, THRESHOLDS_FILE
from mlxlab.inference.sampling import SamplingParams
from mlxlab.tracking.records import FILE, STATE
from support.past_run import past_run
from support.processes import ROOT

METRICS, RUN_FOLDER = (
    (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    for name in ("metrics.md", "run_folder.md")
)
MEASURED = r"(?:train|data|throughput|compile|memory|growth|analysis|example_losses)/[a-z_]+"  # prefixes of metrics


@cache
def pages(folder):
    return "\n".join(
        text for name, text in generated_pages().items() if name.startswith(f"reference/{folder}")
    )


def rows(text):
    """What the tables have in code in their first column."""
    return set(re.findall(r"^\| `([^`]+)`", text, re.M))


def files():
    """(group, path of the node, values) of every file of conf/ that is an option with keys of its own."""
    for file in sorted(shipped_conf().rglob("*.yaml")):
        group = file.relative_to(shipped_conf()).parent.as_posix()
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


def records(hint):
    if isinstance(hint, Record):
        yield hint
        for key in signature(hint.target).keys.values():
            yield from records(key.hint)
    for inner in getattr(hint, "__args__", ()):
        yield from records(inner)


def test_every_group_and_option_is_in_the_reference():
    text = pages("config")
    for group, options in groups([shipped_conf()]).items():
        assert f"## `{group}`" in text
        for option in options:
            assert option in text.split(f"## `{group}`")[1].split("\n## ")[0], (group, option)
    for group in ("launcher", "sweeper"):
        for file in (shipped_conf() / "hydra" / group).glob("*.yaml"):
            assert file.stem in rows(text.split(f"## `hydra/{group}`")[1])


def test_every_key_is_in_the_reference():
    documented, num_keys = rows(pages("config")), 0
    for _, path, values in files():
        for node, target, keys in nodes(path, values):
            for name in node_signature(target, node).keys.keys() & keys.keys():
                key = f"{node}.{name}"
                inner = any(other.startswith(f"{key}.") for other in documented)  # of a component
                assert (
                    key in documented or inner or keys[name] is None or isinstance(keys[name], dict)
                ), key
                num_keys += 1
    for name in signature(TARGET).keys:
        assert (
            name in documented
            or name in groups([shipped_conf()])
            or any(key.startswith(f"{name}.") for key in documented)
        ), name
    assert num_keys > 200


def test_every_key_of_a_mapping_in_a_list_is_in_the_reference():
    text, num_fields = pages("config"), 0
    for _, path, values in files():
        for node, target, _ in nodes(path, values):
            for key in node_signature(target, node).keys.values():
                for record in records(key.hint):
                    for field in signature(record.target).keys:
                        assert f"`{field}`" in text, (record, field)
                        num_fields += 1
    assert num_fields > 50


@pytest.mark.parametrize("name", subcommands())
def test_every_command_and_its_options_are_in_the_reference(name, capsys):
    page = generated_pages()[f"reference/commands/{name}.md"]
    assert f"| [`{name}`]({name}.md) |" in generated_pages()["reference/commands/index.md"]
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    if name == "train":  # its groups and keys have pages of their own
        options = re.findall(r"^    (-[-\w]+|sweep\.\w+)", text, re.M)
        assert len(options) > 5
        assert all(option in page for option in options)
    else:
        options = re.findall(r"^(\w+)=", text.partition("\n\nOptions")[2], re.M)
        assert set(options) == rows(page)


def test_every_exit_code_is_in_the_reference_and_in_the_readme():
    source = (ROOT / "src" / "mlxlab" / "errors.py").read_text()
    defined = {0, 1, 10, 11, 70, *map(int, re.findall(r"exit_code=(\d+)\)", source))}
    defined |= {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    assert set(exit_codes()) == defined
    assert len(set(exit_codes().values())) == len(defined)
    table = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .partition("## Exit codes")[2]
        .partition("\n## ")[0]
    )
    in_readme = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in row.split(",")
    }
    assert in_readme == defined


def test_all_of_the_python_api_is_in_the_reference():
    page = generated_pages()["reference/python_api.md"]
    headings = re.findall(r"^##+ `(.*)`$", page, re.M)
    assert set(mlxlab.__all__) - {"__version__"} <= set(headings)
    for kind in (
        value
        for value in vars(api).values()
        if isinstance(value, type) and value.__module__ == api.__name__
    ):
        assert kind.__name__ in headings
        public = {
            name
            for name in (*vars(kind), *getattr(kind, "__annotations__", {}))
            if not name.startswith("_")
        }
        assert public <= rows(page), kind
    methods = [
        name
        for name, each in vars(LoadedModel).items()
        if callable(each) and not name.startswith("_")
    ]
    assert methods == ["predict", "generate"]
    assert {f"model.{name}" for name in (*methods, "task")} <= set(headings)
    for function in (*map(vars(api).get, mlxlab.__all__), *map(vars(LoadedModel).get, methods)):
        documented = set(
            re.findall(r"^ {8,}(\w+): ", getattr(function, "__doc__", None) or "", re.M)
        )
        assert documented <= {name for row in rows(page) for name in row.split(", ")}, function
    assert {kind.__name__ for kind in vars(errors).values() if isinstance(kind, type)} <= rows(page)
    assert {
        field.name for kind in (GenerationConfig, SamplingParams) for field in fields(kind)
    } <= rows(page)


@cache
def source():
    return "\n".join(file.read_text() for file in (ROOT / "src" / "mlxlab").rglob("*.py"))


def test_every_metric_is_documented():
    documented = set(re.findall(r"`([a-z_]+/[\w/<>]+)`", METRICS))
    assert set(Metric.__args__) <= documented
    logged = set(re.findall(rf'f?"({MEASURED})"', source())) - {
        "data/titanic"
    }  # the name of a folder
    assert len(logged) > 20
    assert logged - groups([shipped_conf()]).keys() <= documented


def test_every_documented_metric_is_in_the_source():
    """By the last part of its name, which may follow a prefix that the program adds, or precede a number."""
    cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+)", METRICS, re.M)
    keys = [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]
    assert len(keys) > 60
    words = set(re.findall(r"[a-z0-9_]+", source()))
    for key in keys:
        last = re.sub(r"<\w+>|_\d+$|_?\.\.\.|^aligned_|^state_", "", key.rpartition("/")[2]).strip(
            "_"
        )
        assert not last or any(word.endswith(last) for word in words), key


def names_in(pattern):
    """`a.json` and `b.json` of the pattern `(a|b)\\.json`."""
    for names, kind in re.findall(r"\(([a-z_|]+)\)\\\.([a-z]+)", pattern):
        yield from (f"{name}.{kind}" for name in names.split("|"))


def test_every_file_of_a_run_folder_is_documented():
    """Those that are moved with an earlier run or uploaded, and those of a real run."""
    documented = {part for code in re.findall(r"`([^`]+)`", RUN_FOLDER) for part in code.split("/")}
    written = {
        *earlier_run._MOVED,
        *names_in(run_files.FILES[run_files.TOP]),
        *names_in(run_files.FILES["plots"]),
    }
    written |= {
        FILE,
        STATE,
        ENSEMBLE_FILE,
        THRESHOLDS_FILE,
        reproduce.FILE,
        LOCK,
        "vocabulary.json",
    }
    folders = [past_run(), *(past_run() / name for name in ("plots", "inference"))]
    written |= {path.name for folder in folders for path in folder.iterdir()}
    assert {"metrics.json", "per_class.csv", "learning_curve.png"} <= written
    assert written <= documented | {"tokenizer.json"}, written - documented


def test_shares_do_not_break_in_a_line_of_the_site():
    html = "<p>95 % of 1 % <code>5 %</code></p><pre><code>6 %\n</code></pre> 7 %"
    assert without_breaks(html) == html.replace("95 %", "95&nbsp;%").replace(
        "of 1 %", "of 1&nbsp;%"
    ).replace(" 7 %", " 7&nbsp;%")
