"""The wheel, in a fresh environment outside the checkout: the same programs, the same conf/."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from mlxlab import __version__
from support.processes import ROOT, environment, tiny_overrides

TINY = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2")


PIP = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
IGNORED = {".cache", ".pytest_cache", ".ruff_cache", "__pycache__", "outputs", "multirun", "mlruns"}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    call([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder], ROOT)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist):
    """The wheel that is built from the sdist, as an installer would."""
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", sdist.parent, sdist]
    call([*PIP, *build], sdist.parent)
    (path,) = sdist.parent.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A new environment with the wheel. It shares the dependencies of this one: installing them would test only pip."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    call([*PIP, "install", "--no-deps", "--target", site, wheel], folder)
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def call(command, folder, **more):
    clean = {key: value for key, value in environment(**more).items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(folder):
    """Those that git does not ignore."""
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in files if not IGNORED & set(path.relative_to(ROOT).parts)]


def mlxlab(folder, *args):
    return call([folder / "env" / "bin" / "python", "-m", "mlxlab", *args], folder)


def test_the_sdist_holds_what_is_needed_to_build_test_and_read(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    single = {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", ".ci/run", "mkdocs.yml"}
    assert single <= names
    for folder in ("src", "conf", "scripts", "tests", "benchmarks", "docs", "examples"):
        assert {str(path.relative_to(ROOT)) for path in files_of(folder)} <= names
    assert not [name for name in names if IGNORED & set(name.split("/"))]


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top_level = {"hydra_plugins", "mlxlab", f"mlxlab-{__version__}.dist-info"}
    assert {name.split("/")[0] for name in names} == top_level
    plugins = [name for name in names if name.startswith("hydra_plugins/")]
    assert plugins == ["hydra_plugins/mlxlab_sweep.py"]
    assert f"mlxlab-{__version__}.dist-info/licenses/LICENSE" in names
    package = {str(path.relative_to(ROOT / "src")) for path in files_of("src/mlxlab")}
    files = package | {f"mlxlab/{path.relative_to(ROOT)}" for path in files_of("conf")}
    assert files == {name for name in names if name.startswith("mlxlab/")}
    suffixes = {Path(name).suffix for name in files}
    assert {".typed", ".csv", ".cpp", ".h", ".html", ".yaml"} <= suffixes
    assert not [name for name in names if "benchmark" in name or "test" in name]


def test_the_wheel_trains_outside_the_checkout(installed):
    packages = next((installed / "env").glob("lib/python*/site-packages"))
    [entry] = packages.glob("mlxlab-*/entry_points.txt")
    assert "mlxlab = mlxlab.cli.main:main" in entry.read_text()
    out = mlxlab(installed, "train", *TINY)
    assert "final_state=" in out
    (run,) = (installed / "outputs").glob("*/*")
    assert (run / "run.json").exists()


def test_the_wheel_has_the_same_conf_and_help(installed):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]
    of_checkout = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert mlxlab(installed, "train", "--help") == of_checkout
    library = installed / "env" / "lib"
    names = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    conf = next(library.glob("python*/site-packages/mlxlab/conf"))
    assert {path.relative_to(conf) for path in conf.rglob("*.yaml")} == names
