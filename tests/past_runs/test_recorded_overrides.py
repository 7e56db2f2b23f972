"""What a rerun takes over from a past run, and how values are written as overrides."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.past_runs.rerun import merge_recorded, override_text, restoring_overrides

FOLDERS = [conf_dir()]
RECORDED = ["model=bert", "model/size=tiny", "model.dropout=0.2", "trainer.epochs=3", "+tags.a=b"]


def test_a_typed_key_replaces_the_recorded_one():
    merged, dropped = merge_recorded(RECORDED, ["trainer.epochs=1,2", "++tags.a=c"], FOLDERS)
    assert (merged, dropped) == (RECORDED[:3], [])


def test_a_typed_option_begins_with_its_own_values_and_leaves_other_groups():
    merged, dropped = merge_recorded(RECORDED, ["model=transformer"], FOLDERS)
    assert merged == ["model/size=tiny", "trainer.epochs=3", "+tags.a=b"]
    assert dropped == ["model.dropout=0.2"]


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


def test_overrides_restore_what_a_config_file_changed():
    saved = {"seed": 1, "trainer": {"epochs": 3, "step": {"a": 1}, "gone": "x"}, "tags": {"a": "b"}}
    now = {"seed": 1, "trainer": {"epochs": 5, "step": {"a": 1, "new": 2}}, "tags": {"c": "d"}}
    assert restoring_overrides(saved, now) == [
        *("+tags.a='b'", "~tags.c", "trainer.epochs=3", "+trainer.gone='x'", "~trainer.step.new")
    ]


def test_what_is_not_taken_over_is_not_restored():
    saved = {"name": "a", "rerun": "x", "resume_policy": {"min_match": 0}}
    now = {"name": "b", "rerun": None, "resume_policy": {"min_match": 1}, "trust_folder": False}
    assert restoring_overrides(saved, now) == []


@pytest.mark.parametrize("key", ["tags['a.b']", "a b", ""])
def test_a_key_that_no_override_can_name_is_an_error(key):
    with pytest.raises(ConfigError, match="no override can name"):
        override_text(key, 1)
