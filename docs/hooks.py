"""MkDocs hooks: the pages on the configuration and on the commands, made from the code.

`mkdocs build --strict` in the root of the repository writes the site to build/site (extra `docs`).
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlxlab.cli.main import main, subcommands
from mlxlab.config.option_files import (
    GLOBAL_GROUPS,
    KeyHelp,
    chosen,
    groups,
    lines,
    node_lines,
    read_option,
)
from mlxlab.config.paths import conf_dir
from mlxlab.config.schema.signature import Record, find_classes, read_signature
from mlxlab.config.schema.validate import describe
from mlxlab.schema.dotted_keys import value_at, walk
from mlxlab.terminal.wording import one_line

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

CONF = [conf_dir()]
LINK_OUT_OF_A_FOLDER = re.compile(r"\[([^\[\]]+)\]\((\.\./[^()\s]+)\)")
CONFIGURATION = """# Configuration

A run is composed from one option of each group (`model=bert`) and from keys (`trainer.learning_rate=1e-4`). This page
is made from the files in `conf/` and the signatures of the classes that they name, as are the checks of a command
line; `--help` of `train` prints the same. A list or a mapping is quoted in a shell: `'model.freeze=[embedding]'`.
`null` means none. A default that only some options have is followed by their names.
"""
SWEEPS = """## Folders and callbacks of sweeps

`hydra.run.dir` is the run folder, by default outputs/DAY/TIME-ID; `hydra.sweep.dir` the folder of a sweep, by default
multirun/DAY/TIME-ID; `hydra.sweep.subdir` the run folder of a job in it, by default its number. `sweep.resume=FOLDER`
runs the jobs that are missing in the folder of a sweep or search.
"""
COMMANDS = """# Commands

`scripts/train.py` is `mlxlab train`. Arguments are `key=value`; `--key` is short for `key=true`, `--help` prints what
this page says. All commands have the same [exit codes](exit_codes.md).
"""


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    from mkdocs.structure.files import File

    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    return without_outer_links(markdown, page.file.src_uri)


def generated_pages() -> dict[str, str]:
    """The Markdown of each page that is no file of docs/, by its path in the site."""
    return {
        "reference/configuration.md": "\n\n".join([CONFIGURATION, *_configuration()]),
        "reference/commands.md": "\n\n".join([COMMANDS, *map(_command, subcommands())]),
    }


def without_outer_links(markdown: str, page: str) -> str:
    """The text of a page in which links to files outside docs/ are plain text: the site does not have them."""

    def in_site(link: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(page).parent / link[2])
        return link[1] if target.startswith("..") else link[0]

    return LINK_OUT_OF_A_FOLDER.sub(in_site, markdown)


def _configuration() -> Iterator[str]:
    yield "## Keys of every run"
    yield _keys({"": lines(CONF, {})})
    default = chosen(CONF)
    for group, options in [*groups(CONF).items(), *_hydra_groups()]:
        yield f"## `{group}`"
        marks = {default.get(group): " (default)"}
        rows = [
            [f"`{option}`{marks.get(option, '')}", _cell(text)] for option, text in options.items()
        ]
        yield _table(["option", "meaning"], rows)
        if group in GLOBAL_GROUPS:
            yield from (_preset(group, option) for option in options)
            continue
        keys = {option: _option_keys(group, option) for option in options}
        yield _keys(keys)
        for key in {key.key: key for of_option in keys.values() for key in of_option}.values():
            yield from _entries(key.key, key.hint)
    yield SWEEPS
    parent_run = read_option(CONF, "", "train").values["hydra"]["callbacks"]["parent_run"]
    yield _keys({"": list(node_lines(parent_run, "hydra.callbacks.parent_run"))})


def _option_keys(group: str, name: str) -> list[KeyHelp]:
    """The keys that one option has, or sets."""
    option = read_option(CONF, group, name)
    node = value_at(option.values, option.package)
    if isinstance(node, dict) and "_target_" in node:
        return list(node_lines(node, option.package))
    set_keys = [key for key, value in walk(option.values) if not isinstance(value, dict)]
    keys = lines(CONF, chosen(CONF, [f"{group}={name}"]))
    return [key for key in keys if key.key in set_keys]


def _preset(group: str, option: str) -> str:
    """The file of an option that sets keys of other groups."""
    text = (CONF[0] / group / f"{option}.yaml").read_text(encoding="utf-8").strip()
    return f"### `{group}={option}`\n\n```yaml\n{text}\n```"


def _hydra_groups() -> Iterator[tuple[str, dict[str, str]]]:
    """The launchers and sweepers: the options of Hydra's own groups that mlxlab has."""
    for folder in sorted((CONF[0] / "hydra").iterdir()):
        files = sorted(folder.glob("*.yaml"))
        yield f"hydra/{folder.name}", {file.stem: _comment(file) for file in files}


def _comment(file: Path) -> str:
    """The first comment of a config file that is not a directive of Hydra."""
    comments = re.findall(r"^# *([^@\s].*)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return comments[0] if comments else ""


def _keys(by_option: dict[str, list[KeyHelp]]) -> str:
    """A table of the keys that the options of a group have. assets/site.css shows it on a phone."""
    rows: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for option, keys in by_option.items():
        for key in keys:
            expected = "a mapping, see below" if _records(key.hint) else key.expected
            defaults = rows.setdefault((key.key, expected, key.description), {})
            defaults.setdefault(key.default, []).append(option)
    cells = [
        [f"`{name}`", _default(defaults, len(by_option)), _cell(expected), _cell(description)]
        for (name, expected, description), defaults in rows.items()
    ]
    table = _table(["key", "default", "expected", "meaning"], cells)
    return f'<div class="keys" markdown>\n\n{table}\n\n</div>'


def _default(options_by_default: dict[str, list[str]], num_options: int) -> str:
    """Each default of a key, with the options that have it unless all have it."""
    texts = []
    for default, options in options_by_default.items():
        text = f"`{_cell(default)}`"
        if len(options) < num_options:
            text += f" ({', '.join(options)})"
        texts.append(text)
    return "<br>".join(texts)


def _entries(name: str, hint: object) -> Iterator[str]:
    """The keys of the mappings that a key takes, such as the operations of `callbacks.growth`."""
    rows: dict[tuple[str, ...], None] = {}
    nested = {}
    for record in _records(hint):
        known = read_signature(record.target)
        assert known is not None
        for field, key in known.keys.items():
            expected = "a mapping, see below" if _records(key.hint) else describe(key.hint)
            meaning = known.doc if field == "op" else key.doc
            rows[f"`{field}`", _cell(expected), _cell(meaning)] = None
            nested[f"{name}.{field}"] = key.hint
    if rows:
        yield f"### Entries of `{name}`"
        yield _table(["key", "expected", "meaning"], rows)
    for field, inner in nested.items():
        yield from _entries(field, inner)


def _records(hint: object) -> list[Record]:
    """The kinds of mappings in a type hint."""
    return [kind for kind in find_classes(hint) if isinstance(kind, Record)]


def _command(name: str) -> str:
    """The help text of a command; that of `train` without its groups and keys, which the other page has."""
    help_text = StringIO()
    with redirect_stdout(help_text):
        main([name, "--help"])
    text = help_text.getvalue()
    if name == "train":
        text = re.sub(r"^Groups .*?^(?=Examples)", "", text, flags=re.DOTALL | re.MULTILINE)
    return f"## `{name}`\n\n```text\n{text.strip()}\n```"


def _table(head: list[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(text: str) -> str:
    """Text without what ends a cell of a table or begins an element of HTML."""
    return one_line(text, 10_000).replace("|", "\\|").replace("<", "&lt;")
