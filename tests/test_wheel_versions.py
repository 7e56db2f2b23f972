"""The versions of Python that are declared are those that `python -m tests.wheel_versions` tries."""

import re
import sys
import tomllib

import pytest
from tests.wheel_versions import find_python, supported_versions

from mlxlab.errors import InputNotFoundError
from support.processes import ROOT


def test_the_classifiers_name_each_version_that_can_be_installed_on():
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, end = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", requires).groups())
    assert supported_versions() == [f"3.{minor}" for minor in range(first, end)]
    assert f"Python 3.{first} to 3.{end - 1}" in (ROOT / "README.md").read_text()


def test_interpreters_are_found_by_what_they_say_of_themselves(monkeypatch, tmp_path):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert find_python(f"3.{sys.version_info.minor}").exists()
    shim = tmp_path / "python3.99"  # of pyenv: on PATH, and without an interpreter behind it
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InputNotFoundError, match=r"Python 3\.99: no python3\.99 on PATH"):
        find_python("3.99")
    behind = tmp_path / "versions" / "3.99.1" / "bin" / "python"
    behind.parent.mkdir(parents=True)
    behind.write_text("#!/bin/sh\necho Python 3.99.1\n")
    behind.chmod(0o755)
    assert find_python("3.99") == behind
