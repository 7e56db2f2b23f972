"""`mlxlab new`: each kind of package is installed as its README says, passes its own tests and trains."""

import os
import subprocess
import sys

import pytest

from mlxlab.cli import new
from mlxlab.cli.new import KINDS, render, write_package
from mlxlab.errors import CannotCreateError
from support.processes import ROOT, environment, run_here

NAMES = {"data": "reviews", "model": "bag", "loss": "brier", "callback": "weight_norm"}


def call(*command, cwd, **more):
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, [more.get("site", ""), str(ROOT / "src")]))}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env=environment(**paths),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    for kind, name in NAMES.items():
        done = run_here(kind, name, f"folder={folder}", script="new")
        assert done.returncode == 0, done.stderr
        assert f"pip install -e {folder}/{name}\n" in done.stdout
    return folder


@pytest.fixture(scope="module")
def site(packages, tmp_path_factory):
    """A folder on the path of Python in which all packages are installed."""
    folder = tmp_path_factory.mktemp("site")
    options = [
        "-q",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    done = call(
        "pip",
        "install",
        *options,
        "--target",
        folder,
        *(f"./{name}" for name in NAMES.values()),
        cwd=packages,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("kinds", "count"),
    [
        (("data", "loss"), 4),
        pytest.param(("model", "callback"), 3, marks=pytest.mark.fault_injection),
    ],
)
def test_every_kind_passes_its_own_tests_once_it_is_installed(packages, site, kinds, count):
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = call("pytest", *options, *(NAMES[kind] for kind in kinds), cwd=packages, site=str(site))
    assert done.returncode == 0, done.stdout
    assert f"{count} passed" in done.stdout


def test_the_help_lists_the_options_of_installed_packages(packages, site):
    done = call(
        "mlxlab", "train", "--help", "model=bag", "model/size=none", cwd=packages, site=str(site)
    )
    assert "reviews" in done.stdout
    assert "* bag" in done.stdout
    assert "model.hidden_size=64" in done.stdout


def test_what_no_option_of_an_installed_package_names_stays_refused(packages, site, tmp_path):
    target = "+trainer.loss={_target_: reviews.dataset.ReviewsEncoder}"
    done = call(
        "mlxlab", "train", target, f"hydra.run.dir={tmp_path}/run", cwd=packages, site=str(site)
    )
    assert done.returncode == 77, done.stderr
    assert "refused: reviews.dataset.ReviewsEncoder is not an allowed target" in done.stderr


def test_an_installed_package_does_not_replace_an_option_of_mlxlab(packages, site, tmp_path):
    (tmp_path / "site" / "other" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "site" / "other" / "__init__.py").write_text("")
    (tmp_path / "site" / "other" / "conf" / "model" / "bert.yaml").write_text(
        "_target_: os.system\n"
    )
    (tmp_path / "site" / "other-1.dist-info").mkdir()
    (tmp_path / "site" / "other-1.dist-info" / "METADATA").write_text("Name: other\nVersion: 1\n")
    (tmp_path / "site" / "other-1.dist-info" / "entry_points.txt").write_text(
        "[mlxlab.plugins]\nother = other\n"
    )
    done = call("mlxlab", "train", "--cfg", "job", cwd=packages, site=f"{tmp_path / 'site'}")
    assert done.returncode == 0, done.stderr
    assert "mlxlab.models.bert.Bert" in done.stdout
    assert "os.system" not in done.stdout


def test_the_packages_satisfy_the_linter(packages):
    for args in (["check"], ["format", "--check"]):
        done = call("ruff", *args, ".", cwd=packages)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["dataset", "reviews"], "dataset: unknown kind; did you mean data?"),
        (["data", "My-Reviews"], "did you mean my_reviews?"),
        (["data", "../reviews"], "did you mean reviews?"),
        (["data", "class"], "class: a keyword of Python; did you mean my_class?"),
        (["data", "titanic"], "titanic: data=titanic exists already; did you mean my_titanic?"),
        (["loss", "focal"], "focal: trainer/loss=focal exists already"),
        (
            ["data", "glob"],
            "glob: a Python module of this name is installed; did you mean my_glob?",
        ),
        (["data"], "expected 2 arguments without `=`, got 1"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_in_one_line(args, message, tmp_path):
    done = run_here(*args, f"folder={tmp_path}", script="new")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "reviews").mkdir()
    monkeypatch.syspath_prepend(tmp_path)  # as with `python -m`: the folder could be imported
    done = run_here("data", "reviews", f"folder={tmp_path}", script="new")
    assert done.returncode == 73
    assert "reviews: exists already" in done.stderr
    assert list((tmp_path / "reviews").iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    done = run_here("data", "reviews", f"folder={tmp_path}/none", script="new")
    assert (done.returncode, "no such folder" in done.stderr) == (66, True)


def test_nothing_is_left_of_a_package_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        new, "render", lambda kind, name: {"a": "", "a/b": ""}
    )  # a file where a folder is needed
    with pytest.raises(CannotCreateError, match="reviews: "):
        write_package("data", "reviews", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_ascii_and_names_no_placeholder(kind):
    for file, text in render(kind, "my_own").items():
        assert text.isascii(), file
        assert "$" not in text
        assert text.endswith("\n")
    assert any("class MyOwn" in text for text in render(kind, "my_own").values())
