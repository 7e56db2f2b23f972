"""`sweep.resume` of a stranger's sweep: its command decides no more than a stored config does."""

import json

import pytest

from support.configs import line, user_config  # noqa: F401
from support.foreign_runs import replace_by_link

SWEEP = ["-m", "seed=0,1", "tracking=none", "hydra.sweep.dir=s"]


def change_start(project, **changes):
    """Changes the command, and forgets its jobs."""
    path = project / "s" / "sweep.json"
    start = json.loads(path.read_text())
    for key, value in changes.items():
        start[key] = start[key] + value if isinstance(start[key], list) else value
    for text in changes.get("overrides", []):
        key, _, value = text.lstrip("+").partition("=")
        start["shared"][key] = value
    path.write_text(json.dumps(start | {"jobs": []}))
    for record in project.glob("s/*/run.json"):
        record.unlink()


@pytest.mark.parametrize(
    "text",
    [
        "callbacks.csv.path=/home/u/.bashrc",
        "+callbacks.more={_target_: mlxlab.callbacks.csv_logger.CSVLogger, path: /x}",
        *("tracking.uri=http://evil", "cloud=directory", "signals.requeue=true"),
        *("hydra.run.dir=/x", "hydra.output_subdir=../../x", "data.source=s3://x/y"),
        *("experiment=../../evil", "trust_folder=true"),
        "+hydra.sweeper.params.callbacks.csv.path=/x",
    ],
)
def test_an_override_that_nobody_typed_is_refused_by_name(text, line):
    assert line(*SWEEP) == 0
    change_start(line.project, overrides=[text])
    assert text.partition("=")[0].lstrip("+") in line.refuses("sweep.resume=s", code=77)


def test_an_override_counts_when_it_is_typed_again_or_the_folder_is_trusted(line):
    assert line(*SWEEP) == 0
    text = "callbacks.csv.path=metrics.csv"
    change_start(line.project, overrides=[text])
    for typed in (text, "trust_folder=true"):
        assert line("sweep.resume=s", typed) == 0, line.err
        assert [config.callbacks.csv.path for config, _ in line.runs] == ["metrics.csv"] * 2
        assert not any(config.trust_folder for config, _ in line.runs)
        change_start(line.project)


@pytest.mark.parametrize("key", ["config_dir", "config_name"])
def test_config_files_of_the_stranger_are_not_read(key, line, user_config):
    evil = user_config("# @package _global_\nname: evil\n", "train.yaml")
    assert line(*SWEEP) == 0
    folder = next(text for text in evil if "/" in text)
    change_start(line.project, **{key: folder})
    flag = f"--{key.replace('_', '-')}"
    assert flag in line.refuses("sweep.resume=s", code=77)


@pytest.mark.parametrize("name", ["multirun.yaml", "0", "report", "sweep.json"])
@pytest.mark.parametrize("trusted", [[], ["trust_folder=true"]], ids=["foreign", "trusted"])
def test_a_link_in_the_folder_of_a_sweep_is_refused(name, trusted, line, tmp_path):
    assert line(*SWEEP) == 0
    replace_by_link(line.project / "s" / name, tmp_path / "target")
    assert "a symbolic link" in line.refuses("sweep.resume=s", *trusted, code=77)
    if name != "sweep.json":
        assert "a symbolic link" in line.refuses(*SWEEP, *trusted, code=77)


@pytest.mark.parametrize("command", [["sweep.resume=s"], [*SWEEP, "hydra/launcher=basic"]])
def test_a_job_that_nobody_typed_is_refused(command, line):
    assert line(*SWEEP) == 0
    path = line.project / "s" / "sweep.json"
    start = json.loads(path.read_text())
    start["jobs"].append(["tracking=none", "seed=1", "callbacks.csv.path=/home/u/.bashrc"])
    path.write_text(json.dumps(start))
    assert line(*command) == 77
    assert "callbacks.csv.path=/home/u/.bashrc: type it again" in line.err
    assert not line.runs
