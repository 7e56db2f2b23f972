"""A page for every config group: options, and keys with type, bounds, default and meaning."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from documentation.mappings import expected, mapping_tables
from documentation.tables import cell, code, key_table, table
from mlxlab.config.help_index import KeyHelp, chosen, groups, lines, option_lines, sweep_lines
from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.config.paths import shipped_conf

PRESETS = ("experiment", "sweep", "debug")  # groups whose options set keys of others
HEAD = """# Configuration

A run is composed from one option of each group (`model=bert`) and from keys (`trainer.learning_rate=1e-4`). These pages
are made from the files in `conf/` and the signatures of the classes that they name, as are the checks of a command
line; `--help` of `train` prints the same. A list or a mapping is quoted in a shell: `'model.freeze=[embedding]'`.
`null` means none. A default that only some options have is followed by their names.
"""
HYDRA = """## Folders and continued sweeps

| key | meaning |
| --- | --- |
| `hydra.run.dir` | the run folder; by default outputs/DAY/TIME-ID |
| `hydra.sweep.dir` | the folder of a sweep; by default multirun/DAY/TIME-ID |
| `hydra.sweep.subdir` | the run folder of a job in it; by default its number |
| `sweep.resume` | the folder of a sweep or search, whose missing jobs are run |

## Callbacks of sweeps
"""


def config_pages() -> dict[str, str]:
    """Path below reference/config -> text."""
    conf = [shipped_conf()]
    every = groups(conf) | _hydra_groups(conf[0])
    pages = {}
    for top, names in groupby(sorted(every, key=_page_of), key=_page_of):
        parts = [f"# {top}"]
        for group in names:
            parts += (
                _presets(conf, group, every[group])
                if group in PRESETS
                else _group(conf, group, every[group])
            )
        pages[f"{top}.md"] = "\n\n".join(parts) + "\n"
    pages["hydra.md"] += "\n\n".join(["", HYDRA, *_keys({"": sweep_lines(conf)})]) + "\n"
    pages["index.md"] = "\n\n".join(_index(conf, every)) + "\n"
    return pages


def _page_of(group: str) -> str:
    return "presets" if group in PRESETS else group.partition("/")[0]


def _hydra_groups(conf: Path) -> dict[str, dict[str, str]]:
    """The launchers and sweepers, as Hydra's own groups are called."""
    result: dict[str, dict[str, str]] = {}
    for file in sorted((conf / "hydra").rglob("*.yaml")):
        group = file.parent.relative_to(conf).as_posix()
        result.setdefault(group, {})[file.stem] = _comment(file)
    return result


def _comment(file: Path) -> str:
    comments = (
        line.lstrip("# ")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    )
    return next((line for line in comments if not line.startswith("@")), "")


def _index(conf: list[Path], every: dict[str, dict[str, str]]) -> Iterator[str]:
    yield HEAD
    default = chosen(conf)
    rows = [
        [
            f"[`{group}`]({_page_of(group)}.md#{anchor(group)})",
            code(default.get(group) or ""),
            ", ".join(options),
        ]
        for group, options in every.items()
    ]
    yield "## Groups"
    yield table(["group", "default", "options"], rows)
    yield "## Keys of every run"
    yield from _keys({"": lines(conf, {})})


def _group(conf: list[Path], group: str, options: dict[str, str]) -> Iterator[str]:
    yield f"## `{group}` {{ #{anchor(group)} }}"
    default = chosen(conf).get(group)
    yield table(
        ["option", ""],
        [
            [code(name) + (" (default)" if name == default else ""), cell(text)]
            for name, text in options.items()
        ],
    )
    yield from _keys({name: option_lines(conf, group, name) for name in options})


def _presets(conf: list[Path], group: str, options: dict[str, str]) -> Iterator[str]:
    """Each option with the values that it sets."""
    yield f"## `{group}` {{ #{anchor(group)} }}"
    yield table(
        ["option", ""],
        [[f"[`{name}`](#{group}-{name})", cell(text)] for name, text in options.items()],
    )
    for name in options:
        file = read_yaml(conf[0] / group / f"{name}.yaml")
        yield f"### `{group}={name}` {{ #{group}-{name} }}"
        yield f"```yaml\n{file.text.strip()}\n```"


def anchor(group: str) -> str:
    return group.replace("/", "-")


class _Row(NamedTuple):
    """A key as several options may have it."""

    key: str
    expected: str
    description: str


def _keys(by_option: dict[str, list[KeyHelp]]) -> Iterator[str]:
    """A table of the keys of a group, and of the entries of those that are lists of mappings."""
    defaults: dict[_Row, dict[str, str]] = {}
    for option, keys in by_option.items():
        for key in keys:
            row = _Row(key.key, expected(key.hint), key.description)
            defaults.setdefault(row, {})[option] = as_yaml(key.value)
    if defaults:
        rows = [
            [code(row.key), _default(values, by_option), cell(row.expected), cell(row.description)]
            for row, values in defaults.items()
        ]
        yield key_table(rows)
    for name, hint in {key.key: key.hint for keys in by_option.values() for key in keys}.items():
        yield from mapping_tables(name, hint)


def _default(values: dict[str, str], options: Iterable[str]) -> str:
    """The default, or that of each option where they differ or not all have the key."""
    if len(set(values.values())) == 1:
        [default] = set(values.values())
        return code(default) + (f" ({', '.join(values)})" if values.keys() != set(options) else "")
    return "<br>".join(f"{code(default)} ({option})" for option, default in values.items())


def as_yaml(value: object) -> str:
    """A default as it is written in a file or on a command line."""
    if isinstance(value, str):
        return value or "''"
    text: Any = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return str(text).removesuffix("\n").removesuffix("\n...")
