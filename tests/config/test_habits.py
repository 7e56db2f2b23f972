"""Lines of Hydra's documentation: `train` behaves as a stock Hydra app with the same conf/."""

import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from support.processes import ROOT, environment, run, tiny_overrides

STOCK = """
import logging
import hydra
from mlxlab.config.hydra.compose import set_up
set_up()

@hydra.main(version_base="1.3", config_path="{conf}", config_name="train")
def train(config):
    logging.getLogger("mlxlab").info("trained")

train()
"""
SHORT = tiny_overrides("trainer.max_steps=1")
BASIC = ["-m", *SHORT, "hydra/sweeper=basic", "hydra/launcher=basic"]
VARIABLE = re.compile(
    r"\d{4}-\d\d-\d\d|\d\d-\d\d-\d\d|-[0-9a-f]{6}\b"
    r"|^\s*- path:.*|^\s*(schema|provider|cwd|output_dir|dir): .*",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Habit:
    """What one line of the documentation does.

    Args:
        prints: the standard output of the stock app is printed.
        makes: a path that is there afterwards.
        says: text that standard output holds.
    """

    args: list[str]
    prints: bool = False
    makes: str = ""
    says: str = ""


PRINTED = {
    "the last override wins": ["seed=1", "seed=2"],
    "+key adds": ["+tags.for=thesis"],
    "++key adds or changes": ["++tags.x=1", "++seed=4"],
    "~key deletes": ["~callbacks.progress_bar"],
    "quoting": ["name='a, b: c'", '+tags={for: "x y"}'],
    "-p": ["-p", "trainer.optimizer"],
    "--resolve": ["--resolve", "name=${data.batch_size}"],
    "an option of a group in a group": ["trainer/schedule=linear"],
    "a value from the environment": ["name=${oc.env:USER,nobody}"],
    "a list": ["data.templates=[basic,full]"],
    "--config-dir": ["--config-dir", "more", "experiment=mine"],
    "--config-name": ["--config-dir", "more", "--config-name", "second"],
    "--config-path": ["--config-path", "{cwd}/other", "--config-name", "small"],
}
HABITS = {
    **{name: Habit(["--cfg", "job", *args], prints=True) for name, args in PRINTED.items()},
    "--cfg hydra -p": Habit(["--cfg", "hydra", "-p", "hydra.job"], prints=True),
    "--cfg all -p": Habit(["--cfg", "all", "-p", "trainer"], prints=True),
    "--info defaults-tree": Habit(["--info", "defaults-tree"], prints=True),
    "--info defaults": Habit(["--info", "defaults"], prints=True),
    "--info config": Habit(["--info", "config"], says="learning_rate"),
    "--info searchpath": Habit(["--info", "searchpath"], says="conf"),
    "--info plugins": Habit(["--info", "plugins"], says="GridSweeper"),
    "glob()": Habit([*BASIC, "model=glob(bert*)", "hydra.sweep.dir=s"], makes="s/0"),
    "choice() and range()": Habit(
        [*BASIC, "seed=choice(1,2)", "data.fold=range(1)", "data.folds=2", "hydra.sweep.dir=s"],
        makes="s/1",
    ),
    "${hydra:...} in hydra.run.dir": Habit(
        [*SHORT, "hydra.run.dir=named/${hydra:runtime.choices.model}-${hydra:job.name}"],
        makes="named/bert-train",
    ),
    "hydra.output_subdir": Habit(
        [*SHORT, "hydra.output_subdir=h", "hydra.run.dir=run"], makes="run/h/config.yaml"
    ),
    "hydra/job_logging=default": Habit(
        [*SHORT, "hydra/job_logging=default", "hydra.run.dir=run"], makes="run/train.log"
    ),
    "hydra/job_logging=colorlog": Habit(
        [*SHORT, "hydra/job_logging=colorlog"], makes="train.log", says="INFO"
    ),
}


@pytest.fixture
def project(tmp_path):
    for name in ("more/experiment", "other", "conf/experiment"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "app.py").write_text(STOCK.format(conf=ROOT / "conf"))
    (tmp_path / "more/experiment/mine.yaml").write_text("# @package _global_\nseed: 5\n")
    (tmp_path / "more/second.yaml").write_text("defaults: [train, _self_]\nseed: 6\n")
    (tmp_path / "other/small.yaml").write_text("seed: 7\n")
    (tmp_path / "conf/experiment/own.yaml").write_text("# @package _global_\nseed: 77\n")
    return tmp_path


def run_own(project, args, **variables):
    args = [arg.replace("{cwd}", str(project)) for arg in args]
    return run(*args, folder=project, **variables)


def run_stock(project, args, **variables):
    command = [sys.executable, "app.py", *(arg.replace("{cwd}", str(project)) for arg in args)]
    env = environment(HYDRA_FULL_ERROR="1", **variables)
    return subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, timeout=300
    )


def without_what_varies(text: str) -> list[str]:
    return [line for line in VARIABLE.sub("", text).splitlines() if line.strip()]


@pytest.mark.parametrize("name", HABITS)
def test_train_does_what_a_stock_app_does(project, name):
    habit = HABITS[name]
    own = run_own(project, habit.args)
    assert own.returncode == 0, own.stderr
    assert habit.says in own.stdout
    assert (own.stdout + own.stderr).count("713 training rows") <= 1
    assert (project / habit.makes).exists()
    if habit.prints:
        stock = run_stock(project, habit.args)
        assert stock.returncode == 0, stock.stderr
        assert without_what_varies(own.stdout) == without_what_varies(stock.stdout)


def test_options_of_the_working_directory_can_be_chosen(project):
    own = run_own(project, ["--cfg", "job", "experiment=own"])
    assert "seed: 77\n" in own.stdout


@pytest.mark.parametrize("typed", ["trainer", "trainer=", "trainer/schedule=c", "data.te"])
def test_completion_offers_what_a_stock_app_does(project, typed):
    flags = ["-sc", "query=bash"]
    own = run_own(project, flags, COMP_LINE=f"app.py {typed}")
    stock = run_stock(project, flags, COMP_LINE=f"app.py {typed}")
    assert own.stdout == stock.stdout != "\n"


def test_the_documented_differences_are_three(project):
    text = (ROOT / "docs" / "reference" / "hydra.md").read_text(encoding="utf-8")
    differences = text.partition("## Differences")[2]
    rows = [line for line in differences.splitlines() if line.startswith("| `")]
    assert 0 < len(rows) <= 3
    typo = run_own(project, ["seeed=1"])
    assert (typo.returncode, len(typo.stderr.splitlines())) == (2, 1)
    own_help = run_own(project, ["--help"])
    assert "trainer.learning_rate=" in own_help.stdout
    pickle = run_own(project, ["--experimental-rerun", "x.pickle"])
    assert pickle.returncode == 77
