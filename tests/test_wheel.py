"""The wheel, in a fresh environment outside the checkout: the same programs, the same conf/."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from support.processes import ROOT, but, environment

TINY = but("trainer.max_steps=2", "trainer.eval_every=2")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A new environment with the wheel. Its dependencies are borrowed from ours: installing them tests only pip."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    call([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)], folder)
    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    call([*pip, "install", "--no-deps", "--target", str(site), *map(str, folder.glob("*.whl"))], folder)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def call(command, folder, **more):
    clean = {key: value for key, value in environment(**more).items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mlxlab(folder, *words):
    python = folder / "env" / "bin" / "python"
    return call([python, "-c", "import sys; from mlxlab.cli.main import main; sys.exit(main())", *words], folder)


def test_the_wheel_trains_outside_the_checkout(installed):
    out = mlxlab(installed, "train", *TINY)
    assert "final_state=" in out
    (run,) = (installed / "outputs").glob("*/*")
    assert (run / "metrics.json").exists()
    assert f"run folder: {run}" in out


def test_the_wheel_is_what_was_run(installed):
    python = installed / "env" / "bin" / "python"
    where = call([python, "-c", "import mlxlab; print(mlxlab.__file__)"], installed)
    assert Path(where.strip()).is_relative_to(installed)
    assert not Path(where.strip()).is_relative_to(ROOT)


def test_the_wheel_has_the_same_conf_and_help(installed):
    ours = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    ).stdout
    theirs = mlxlab(installed, "train", "--help")
    assert theirs.replace("mlxlab train", "scripts/train.py") == ours
    packed = installed / "env" / "lib"
    names = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    conf = next(packed.glob("python*/site-packages/mlxlab/conf"))
    assert {path.relative_to(conf) for path in conf.rglob("*.yaml")} == names


def test_the_wheel_declares_the_program(installed):
    entry = next((installed / "env" / "lib").glob("python*/site-packages/mlxlab-*/entry_points.txt"))
    assert "mlxlab = mlxlab.cli.main:main" in entry.read_text()
