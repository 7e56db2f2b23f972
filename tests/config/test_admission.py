"""What a stored config and the overrides that a folder records may decide."""

import copy
import logging

import pytest

from mlxlab.config.admission import (
    admit,
    admitted_choices,
    admitted_config,
    is_trusted,
    may_override,
    may_sweep,
    refuse_addresses,
)
from mlxlab.config.check import check_stored_config
from mlxlab.config.hydra.compose import compose_checked
from mlxlab.errors import NotAllowedError
from support.foreign_runs import csv, journal, s3, setting


@pytest.fixture(scope="module")
def composed():
    return compose_checked([])


@pytest.fixture
def current(composed):
    return copy.deepcopy(composed)


@pytest.fixture
def stored(composed):
    config = copy.deepcopy(composed)
    del config["trust_folder"]
    return config


def test_the_leaves_of_the_list_count(stored, current, caplog):
    numbers = ["model.hidden_size", "data.batch_size", "trainer.learning_rate", "seed"]
    numbers += ["checkpointing.every_steps", "checkpointing.keep", "callbacks.adaptive_batch.max"]
    numbers += ["callbacks.early_stopping.patience"]
    texts = ["objective", "name", "backend.native", "tags.for"]
    for key in (*numbers, *texts):
        setting(key, 3 if key in numbers else "x")(stored)
    caplog.set_level(logging.INFO)
    stored["callbacks"]["second"] = stored["callbacks"]["early_stopping"] | {"patience": 2}
    stored["tags"] = {"ticket": "https://tracker/1"}
    assert admit(stored, current, "run") == stored
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    ("named", "value"),
    [
        ("tracking.uri", "http://evil"),
        ("tracking.artifacts", "/evil"),
        ("cloud", s3("http://evil")),
        ("callbacks.csv.path", "/evil"),
        ("callbacks.csv.allow_outside", True),
        ("callbacks.early_stopping", csv("/evil")),
        ("callbacks.more", csv("/evil")),
        ("signals.requeue", True),
    ],
)
def test_everything_else_is_that_of_the_command_and_is_named(named, value, stored, current, caplog):
    setting(named, value)(stored)
    caplog.set_level(logging.INFO)
    admission = admit(stored, current, "run")
    del current["trust_folder"]
    assert admission == current
    [line] = [line for line in caplog.messages if "left out" in line]
    assert f"left out: {named};" in line
    caplog.clear()
    assert admit(stored, current, "run", [named]) == current
    assert not caplog.messages
    assert admit(stored, current, "run", trusted=True) == stored


@pytest.mark.parametrize("key", ["resume", "resume_policy.allow_data_change"])
def test_what_each_command_says_itself_is_neither_taken_over_nor_named(
    key, stored, current, caplog
):
    setting(key, "x")(stored)
    caplog.set_level(logging.INFO)
    assert admit(stored, current, "run")["resume"] is None
    assert not caplog.messages


def test_a_callback_that_the_run_left_out_stays_left_out(stored, current):
    del stored["callbacks"]["report"], stored["callbacks"]["early_stopping"]
    assert admit(stored, current, "run")["callbacks"].keys() == stored["callbacks"].keys()


def test_a_callback_of_ones_own_is_refused_unless_the_command_has_it(stored, current):
    mine = {"_target_": "own.Mine", "rate": 1}
    stored["callbacks"]["mine"] = mine
    with pytest.raises(NotAllowedError, match=r"callbacks\.mine"):
        admit(stored, current, "run")
    current["callbacks"]["mine"] = mine | {"rate": 2}
    with pytest.raises(NotAllowedError, match=r"callbacks\.mine\.rate"):
        admit(stored, current, "run")
    current["callbacks"]["mine"] = mine
    assert admit(stored, current, "run")["callbacks"]["mine"] == mine


def test_no_tracking_is_kept_unless_the_command_names_a_tracker(stored, current):
    none = {"_target_": "mlxlab.tracking.tracker.NoTracker"}
    stored["tracking"] = none
    assert admit(stored, current, "run")["tracking"] == none
    assert admit(stored, current, "run", ["tracking"])["tracking"] == current["tracking"]
    stored["tracking"], current["tracking"] = journal("http://evil"), none
    for trusted in (True, False):
        assert admit(stored, current, "run", ["tracking"], trusted=trusted)["tracking"] == none


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.source", "https://evil/rows.csv"),
        ("trainer.teachers", ["s3://evil/run"]),
        ("data.mixture", {"ftp://evil/x": 1.0}),
    ],
)
def test_an_address_has_to_be_typed(key, value, stored, current):
    setting(key, value)(stored)
    with pytest.raises(NotAllowedError, match=key.replace(".", r"\.")):
        admit(stored, current, "run")
    with pytest.raises(NotAllowedError):
        refuse_addresses(stored, {}, "run", ())
    admit(stored, current, "run", [key])
    setting(key, value)(current)
    admit(stored, current, "run")


def test_the_config_for_reading_is_valid_and_reaches_nothing(stored):
    setting("tracking.uri", "http://evil")(stored)
    setting("cloud", s3("http://evil"))(stored)
    setting("signals.requeue", True)(stored)
    config = check_stored_config(admitted_config(stored), "run")
    assert {*config["callbacks"]} == {"adaptive_batch", "growth", "early_stopping"}
    assert "evil" not in str(config)
    assert not config["signals"]["requeue"]
    assert config["model"] == stored["model"]


@pytest.mark.parametrize(
    "text",
    [
        *("model=bert", "model=bert,transformer", "'model=choice(bert, transformer)'".strip("'")),
        *("model/size=tiny", "trainer/loss=focal", "experiment=mine/first", "sweep=titanic_folds"),
        *("+model.x=1", "~model.dropout", "data.source=/data/rows.csv", "seed=range(3)"),
        *("trainer.learning_rate=tag(log,interval(1e-5,1e-3))", "tracking=none"),
        *("~callbacks.report", "callbacks.early_stopping.patience=3", "+tags.a=b", "name=x"),
    ],
)
def test_an_override_of_the_list_is_used_again(text):
    assert may_override(text)
    assert may_sweep(text)


@pytest.mark.parametrize(
    "text",
    [
        *("callbacks.csv.path=/x", "+callbacks.more={_target_: x.Y}", "callbacks=mine"),
        *("callbacks.early_stopping={_target_: x.Y}", "callbacks.early_stopping._target_=x.Y"),
        *("cloud=s3", "cloud.bucket=b", "tracking=wandb", "tracking.uri=x", "signals.requeue=true"),
        *("data.source=s3://x/y", "trainer.teachers=[http://x]", "trust_folder=true"),
        *("hydra.run.dir=/x", "hydra.output_subdir=../x", "hydra.job.env_set.PATH=/x"),
        *("hydra/job_logging=mine", "hydra.searchpath=[/x]", "hydra.callbacks.x._target_=y"),
        *("experiment=/x/evil", "experiment=../../evil", "model=[bert,/x/evil]", "model/size=../x"),
        *("model@cloud=evil", "+data@tracking=x", "tracking/x=y", "model=file:evil"),
    ],
)
def test_another_override_is_not(text):
    assert not may_override(text)
    assert not may_sweep(text)


def test_a_journal_of_a_sweep_may_also_say_how_it_is_swept():
    params = "+hydra.sweeper.params"
    allowed = ["hydra/sweeper=search", "hydra.sweeper.trials=20", "hydra.launcher.n_jobs=2"]
    allowed += [f"{params}.trainer.learning_rate=interval(0,1)", "resume=auto"]
    refused = ["hydra/sweeper=/x/evil", "hydra/sweeper@tracking=grid", "hydra/job_logging=mine"]
    refused += ["hydra.sweeper.params={callbacks.csv.path: /x}", "resume=s3://x/y"]
    refused += [f"{params}.callbacks.csv.path=/x"]
    assert all(map(may_sweep, allowed))
    assert not any(map(may_sweep, refused))
    assert not any(map(may_override, [*allowed, *refused]))


def test_stored_options_are_plain_names_and_trust_is_typed():
    assert is_trusted(["seed=1", "trust_folder=True"])
    for typed in ([], ["trust_folder=false"], ["tags.trust_folder=true"]):
        assert not is_trusted(typed)
    choices = {"model": "bert", "trainer/loss": "../../../evil", "cloud": "s3", "hydra/x": "y"}
    assert admitted_choices(choices) == {"model": "bert"}
