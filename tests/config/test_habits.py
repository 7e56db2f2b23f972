"""Lines of Hydra's documentation: `train` behaves as a stock Hydra app with the same conf/."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from support.processes import ROOT, environment, passed, run, tiny_overrides

STOCK = """
import json, logging, sys
import hydra
from mlxlab.config.hydra.compose import set_up
set_up()

@hydra.main(version_base="1.3", config_path="{conf}", config_name="train")
def train(config):
    logging.getLogger("mlxlab").info("trained")

for args in json.loads(sys.stdin.read() or "[null]"):
    sys.argv[1:] = sys.argv[1:] if args is None else args
    train()
    print("{end}" if args else "", flush=True)
"""
END = "the end of a line of the documentation"
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
    "~key deletes": ["~callbacks.progress_bar"],
    "quoting": ["name='a, b: c'", '+tags={for: "x y"}'],
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
    "--info defaults-tree": Habit(["--info", "defaults-tree"], prints=True),
    "--info config": Habit(["--info", "config"], says="learning_rate"),
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


def make_project(folder):
    for name in ("more/experiment", "other", "conf/experiment"):
        (folder / name).mkdir(parents=True)
    (folder / "app.py").write_text(STOCK.format(conf=ROOT / "conf", end=END))
    (folder / "more/experiment/mine.yaml").write_text("# @package _global_\nseed: 5\n")
    (folder / "more/second.yaml").write_text("defaults: [train, _self_]\nseed: 6\n")
    (folder / "other/small.yaml").write_text("seed: 7\n")
    (folder / "conf/experiment/own.yaml").write_text("# @package _global_\nseed: 77\n")
    return folder


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def in_project(project, args):
    return [arg.replace("{cwd}", str(project)) for arg in args]


def run_own(project, args, **variables):
    return run(*in_project(project, args), folder=project, **variables)


def run_stock(project, args, lines="", **variables):
    """Of the arguments, or of each list of them in `lines`, in one process."""
    command = [sys.executable, "app.py", *args]
    env = environment(HYDRA_FULL_ERROR="1", **variables)
    return subprocess.check_output(command, input=lines, cwd=project, env=env, text=True)


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the stock app prints for each habit that prints."""
    project = make_project(tmp_path_factory.mktemp("stock"))
    names = [name for name, habit in HABITS.items() if habit.prints]
    lines = json.dumps([in_project(project, HABITS[name].args) for name in names])
    return dict(zip(names, run_stock(project, [], lines).split(END), strict=False))


def without_what_varies(text: str) -> list[str]:
    return [line for line in VARIABLE.sub("", text).splitlines() if line.strip()]


@pytest.mark.parametrize("name", HABITS)
def test_train_does_what_a_stock_app_does(project, name, printed):
    habit = HABITS[name]
    own = passed(run_own(project, habit.args))
    assert habit.says in own.stdout
    assert (own.stdout + own.stderr).count("713 training rows") <= 1
    assert (project / habit.makes).exists()
    if habit.prints:
        assert without_what_varies(own.stdout) == without_what_varies(printed[name])


def test_options_of_the_working_directory_can_be_chosen(project):
    own = run_own(project, ["--cfg", "job", "experiment=own"])
    assert "seed: 77\n" in own.stdout


@pytest.mark.parametrize("typed", ["trainer", "trainer=", "trainer/schedule=c", "data.te"])
def test_completion_offers_what_a_stock_app_does(project, typed):
    flags = ["-sc", "query=bash"]
    own = run_own(project, flags, COMP_LINE=f"app.py {typed}")
    stock = run_stock(project, flags, COMP_LINE=f"app.py {typed}")
    assert own.stdout.split() == stock.split() != []


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
