"""`rerun=<run>`: a past run again, in a new folder, with changes."""

import json
import shutil

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mlxlab.config.check import read_stored_config
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.past_runs.rerun import expand_rerun, merge_recorded, override_text
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Parent
from support.configs import line, user_config  # noqa: F401
from support.past_run import past_run
from support.processes import succeed_here


@pytest.fixture(name="past_run")
def past_run_fixture():
    return past_run()


@pytest.fixture
def copied_run(past_run, tmp_path):
    return shutil.copytree(past_run, tmp_path / "past")


def edit_json(path, change):
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def edit_config(folder, old, new):
    file = folder / "inference" / "config.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def values(line, *argv):
    """The config of the run that the command line starts."""
    assert line(*argv) == 0, line.err
    return line.runs[0][0]


def test_a_run_without_changes_ends_in_the_same_state_and_names_the_past_one(past_run, tmp_path):
    succeed_here(f"rerun={past_run}", f"hydra.run.dir={tmp_path}/again")
    before, now = read_run(past_run), read_run(tmp_path / "again")
    assert now.training.final_state == before.training.final_state
    assert now.parents == [Parent("rerun", str(past_run))]
    assert now.id != before.id
    assert now.name != "first"


def test_the_config_is_that_of_the_run_with_the_changes(past_run, line):
    saved = read_stored_config(past_run / "inference" / "config.yaml")
    config = values(line, f"rerun={past_run}", "trainer.max_steps=9")
    assert (config.trainer.max_steps, config.rerun, config.name) == (9, str(past_run), None)
    assert config.model == saved["model"]
    assert config.data == saved["data"]


def test_values_of_the_run_count_where_conf_has_changed(copied_run, line):
    edit_config(copied_run, "patience: null", "patience: 7")
    config = values(line, f"rerun={copied_run}")
    assert config.callbacks.early_stopping.patience == 7
    assert (
        f"{copied_run}: conf/ has other values now, those of the run are used: callbacks.early_stopping.patience"
        in line.err
    )


def test_a_foreign_folder_builds_nothing_that_may_not_be_built(copied_run, line):
    edit_config(copied_run, "mlxlab.tracking.tracker.NoTracker", "subprocess.Popen")
    assert "subprocess.Popen" in line.refuses(f"rerun={copied_run}", code=77)
    (copied_run / "run.lock").write_text("[" * 10_000)
    assert "run.lock" in line.refuses(f"rerun={copied_run}", code=65)


def test_a_fork_begins_with_the_same_checkpoint_again(copied_run, line):
    checkpoint = copied_run / "checkpoints" / "step-00000003"
    edit_json(copied_run / "run.lock", lambda fields: fields.update(forked_from=str(checkpoint)))
    assert values(line, f"rerun={copied_run}").resume == str(checkpoint)
    assert line.runs[0][1].is_relative_to(line.project / "outputs")
    assert "leave out resume" in line.refuses(f"rerun={copied_run}", "resume=auto")
    edit_json(
        copied_run / "run.lock", lambda fields: fields.update(forked_from="s3://elsewhere/run")
    )
    assert "expected the path of a checkpoint" in line.refuses(f"rerun={copied_run}", code=65)


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["rerun=nowhere/run"], 66, "expected a run folder, or the id of a run"),
        (["rerun=missing"], 69, "missing: not a folder, and no id of a run"),
        (["rerun=a,b"], 2, "several values"),
        (["-m", "rerun=a,b"], 2, "several values"),
    ],
)
def test_what_is_no_past_run_is_one_line(args, code, expected, line, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert expected in line.refuses(*args, code=code)


def test_a_rerun_cannot_resume_another_run(past_run):
    with pytest.raises(ConfigError, match="rerun starts a new run"):
        expand_rerun([f"rerun={past_run}", "resume=outputs/other"], [], lambda overrides: {})


FOLDERS = [conf_dir()]


OF_ONE_RUN = ["name=first", "resume=auto", "rerun=x", "hydra.run.dir=/x", "hydra/launcher=x"]
OF_ONE_RUN += ["+hydra.callbacks.x=y", "resume_policy.min_match=0", "trust_folder=true"]


@pytest.mark.parametrize("override", OF_ONE_RUN)
def test_what_belongs_to_one_run_is_not_taken_over(override):
    assert merge_recorded([override, "seed=1"], [], FOLDERS) == (["seed=1"], [])


VALUES = [None, True, 3, -2.5, 1e-5, float("inf"), "", "plain", "it's \\' \\", "a, b: [c]"]
VALUES += ["${seed}", "\\${seed}", [], ["x", 1, None], {"a": [1, {"b/c.x": "d"}]}]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_hydra_reads_a_written_value_as_it_was(value):
    override = OverridesParser.create().parse_override(override_text("key", value))
    config = OmegaConf.create({"key": override.value()})
    assert OmegaConf.to_container(config, resolve=True) == {"key": value}


@pytest.mark.parametrize("key", ["tags['a.b']", "a b", ""])
def test_a_key_that_no_override_can_name_is_an_error(key):
    with pytest.raises(ConfigError, match="no override can name"):
        override_text(key, 1)
