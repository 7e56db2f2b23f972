"""Registered packages: found in the metadata of installed distributions, and nowhere else."""

import sys

import pytest

from mlxlab.config.instantiate import why_disallowed
from mlxlab.config.paths import plugins


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package that registers itself; importing it fails."""
    monkeypatch.syspath_prepend(tmp_path)

    def call(name, *, registered=None, conf=True):
        package, metadata = tmp_path / name, tmp_path / f"{name}-1.dist-info"
        (package / "conf" / "model" if conf else package).mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('imported')\n")
        (package / "parts.py").write_text("class Mine: ...\nclass Other: ...\n")
        if conf:
            text = f"_target_: {name}.parts.Mine\nx: os.system\n"
            (package / "conf" / "model" / "mine.yaml").write_text(text)
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        entry = f"[mlxlab.plugins]\n{name} = {registered or name}\n"
        (metadata / "entry_points.txt").write_text(entry)
        plugins.cache_clear()
        return package

    yield call
    plugins.cache_clear()


def test_only_what_its_own_conf_names_of_itself_may_be_built(install):
    package = install("registered_two")
    assert plugins() == {"registered_two": package / "conf"}
    others = "a: {_target_: os.system}\nb: {_target_: registered_two_more.Thing}\n"
    (package / "conf" / "model" / "others.yaml").write_text(others)
    assert why_disallowed("registered_two.parts.Mine") is None
    for target in ("registered_two.parts.Other", "os.system", "registered_two_more.Thing"):
        assert "not an allowed target" in why_disallowed(target)
    assert "registered_two" not in sys.modules


@pytest.mark.parametrize(
    "fault", [{"conf": False}, {"registered": "registered_nowhere"}], ids=["conf", "package"]
)
def test_a_registration_without_a_package_or_conf_is_ignored_with_a_warning(install, caplog, fault):
    install("registered_three", **fault)
    assert plugins() == {}
    assert "the plugin registered_three is ignored: expected a package" in caplog.text


def test_a_run_folder_registers_nothing(install, tmp_path, monkeypatch):
    install("registered_four")
    name = "registered_four-1.dist-info"
    (tmp_path / "run").mkdir()
    (tmp_path / name).rename(tmp_path / "run" / name)
    monkeypatch.chdir(tmp_path / "run")
    plugins.cache_clear()
    assert plugins() == {}
    assert why_disallowed("registered_four.parts.Mine")
