"""The config of a resumed run: that of its checkpoint, with what was typed."""

import shutil

import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.config.check import read_stored_config
from mlxlab.config.hydra.compose import compose
from mlxlab.errors import ConfigError
from mlxlab.past_runs.collect_record import read_info, write_run_report
from mlxlab.record.run_file import read_run
from mlxlab.run import entry
from mlxlab.run.entry import resumed_choices
from mlxlab.terminal.program import run_dir_override
from mlxlab.views.commands import continuing_lines
from support.configs import user_config  # noqa: F401
from support.html_pages import ParsedPage
from support.processes import final_state, passed, run_here, succeed_here, tiny_overrides

CHEAP = ["data.source=synthetic", "data.templates=[basic]", "data.augment.copies=1"]
GROWTH = (
    "callbacks.growth.operations=[{id: wider, op: widen, feed_forward: 600, when: {or_steps: 1}},"
    " {id: lora, op: set_lora, rank: 2, when: {or_steps: 1}},"
    " {id: rate, op: set_learning_rate, learning_rate: 0.005, when: {or_steps: 1}}]"
)
START = [
    *(
        text
        for text in tiny_overrides("trainer.max_steps=4", "trainer.eval_every=4")
        if "intermediate" not in text
    ),
    "tags.note='\\${x}'",
    GROWTH,
    *CHEAP,
]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    succeed_here(*START, f"hydra.run.dir={folder}")
    return folder


@pytest.fixture
def run_dir(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def resume(folder, *overrides):
    return run_here("tracking=none", *overrides, "resume=auto", f"hydra.run.dir={folder}")


def stored(folder):
    return read_stored_config(folder / "inference" / "config.yaml")


def last_state(folder):
    return CheckpointStore(folder / "checkpoints").load(read_only=True).state


def test_what_growth_changed_stays_where_the_same_command_is_run_again(finished_run, run_dir):
    resumed = succeed_here(*START, "resume=auto", f"hydra.run.dir={run_dir}")
    assert "changed since" not in resumed.stderr
    grown, now = last_state(finished_run), last_state(run_dir)
    assert now["architecture"] == grown["architecture"]
    assert now["progress"].settings.learning_rate == 0.005


def test_another_trainer_keeps_what_was_typed_of_it_in_all_attempts(run_dir):
    passed(resume(run_dir, "trainer.max_steps=5", "trainer.log_every=3"))
    resumed = passed(resume(run_dir, "trainer=optimized", "trainer.max_steps=6"))
    trainer = stored(run_dir)["trainer"]
    assert stored(run_dir)["tags"]["note"] == "${x}"
    assert (trainer["eval_every"], trainer["log_every"], trainer["max_steps"]) == (4, 3, 6)
    assert trainer["step"]["_target_"].endswith("OptimizedStep")
    assert "trainer.eval_every" not in resumed.stderr
    assert "changed since the checkpoint: trainer.step._target_" in resumed.stderr


def test_a_finished_run_says_so_and_which_limit_ended_it(finished_run, run_dir):
    state = read_run(finished_run).training.final_state
    resumed = passed(resume(run_dir))
    message = "already finished at step 4 (trainer.max_steps=4)"
    assert resumed.stderr.splitlines()[-1] == message
    assert final_state(resumed).split()[0] == f"final_state={state}"
    assert read_run(run_dir).status == "finished"
    assert resume(run_dir, "trainer.epochs=300").stderr.splitlines()[-1] == message
    lower = resume(run_dir, "trainer.max_steps=3").stderr.splitlines()[-1]
    assert lower == message.replace("max_steps=4", "max_steps=3")
    (run_dir / "run.json").write_text("{")  # as if killed while it was written
    ended = resume(run_dir, "trainer.max_steps=3")
    assert "trainer.max_steps=3 is already passed" in ended.stderr
    assert read_run(run_dir).is_evaluated


def test_a_resume_from_an_earlier_checkpoint_drops_the_commands_after_it(run_dir):
    keep = ["checkpointing.every_steps=1", "checkpointing.keep=9"]
    passed(resume(run_dir, "trainer.max_steps=6", *keep))
    passed(resume(run_dir, "trainer.max_steps=7"))
    succeed_here("resume=step-5", "trainer.max_steps=8", f"hydra.run.dir={run_dir}")
    continued = read_info(run_dir).view.record.command.continued
    assert [each.step for each in continued] == [4, 5]
    assert "trainer.max_steps=8" in continued[-1].overrides


def test_a_change_of_the_model_is_named_with_its_step(run_dir, tmp_path):
    passed(resume(run_dir, "model.intermediate_size=640", "trainer.max_steps=5"))
    change = (4, "by a resume: model.intermediate_size 600 -> 640")
    assert change in read_info(run_dir).view.record.training.events
    page = ParsedPage(write_run_report(run_dir).read_text()).text
    assert "Step 4: by a resume: model.intermediate_size 600 -> 640" in page
    assert "Step 1: growth: wider" in page
    forked = tmp_path / "forked"
    succeed_here(f"resume={run_dir}", "trainer.max_steps=6", f"hydra.run.dir={forked}")
    record = read_info(forked).view.record
    assert change in record.training.events
    assert continuing_lines(record.command.continued) == []


def test_the_options_of_the_run_are_those_that_typed_keys_are_in(
    finished_run, tmp_path, monkeypatch
):
    with_apostrophe = tmp_path / "it's"
    with_apostrophe.symlink_to(finished_run)
    folder = f"hydra.run.dir={finished_run}"
    choices = resumed_choices(["resume=auto", folder])
    assert choices["model/adapter"] == "none"
    assert resumed_choices([f"resume={finished_run}/checkpoints/last"]) == choices
    assert resumed_choices([run_dir_override(with_apostrophe), "resume=auto"]) == choices
    assert resumed_choices([folder]) == {}
    typed = ["model.adapter.rank=4", "data.packing.stride=7"]
    options = {"model/adapter": "lora", "data": "streaming", "trainer": "optimized"}
    monkeypatch.setattr(entry, "resumed_choices", lambda _: options)
    resumed = entry.resumed_options(typed)
    assert resumed == ["model/adapter=lora", "data=streaming"]
    config = compose([*resumed, *typed])
    assert (config.model.adapter.rank, config.data.packing.stride) == (4, 7)
    assert config.trainer.step._target_.endswith("PlainStep")
    with pytest.raises(ConfigError, match=r"rnak=4: unknown key; did you mean model.adapter.rank"):
        compose([resumed[0], "model.adapter.rnak=4"])


def test_a_config_whose_values_conflict_is_refused_by_key(run_dir):
    resumed = resume(run_dir, "trainer.schedule.warmup=5")
    assert (resumed.returncode, resumed.stderr.count("\n")) == (2, 1)
    assert resumed.stderr.startswith("trainer.schedule.warmup=5: ")


@pytest.mark.parametrize("defaults", ["", "defaults: [other]\n", "defaults: [/experiment/other]\n"])
def test_an_option_of_the_user_changes_a_resumed_run(run_dir, user_config, defaults):
    values = "trainer:\n  max_steps: 6\n"
    user_config(f"# @package _global_\n{values}", "experiment/other.yaml")
    flags = user_config(f"# @package _global_\n{defaults or values}")
    resumed = passed(resume(run_dir, *flags))
    assert "changed since the checkpoint: trainer.max_steps: 4 -> 6" in resumed.stderr
    assert stored(run_dir)["trainer"]["max_steps"] == 6
