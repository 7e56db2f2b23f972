"""What a resume may change: the checkpoint's config is the base, only what was typed counts."""

import pytest

from mlxlab.config.paths import conf_dir
from mlxlab.config.resume_overrides import key_class, merge_for_resume
from mlxlab.errors import ConfigError

SAVED = {
    "model": {"_target_": "a", "width": 128, "num_layers": 4, "dropout": 0.3},
    "data": {"_target_": "d", "batch_size": 8, "fold": 1},
    "trainer": {"learning_rate": 1e-3, "epochs": 3, "loss": {"_target_": "ce"}},
    "seed": 4,
    "objective": "valid/loss",
    "resume": None,
}
DEFAULTS = {
    "model": {"_target_": "a", "width": 128, "num_layers": 6, "dropout": 0.1},
    "data": {"_target_": "d", "batch_size": 32, "fold": 0},
    "trainer": {"learning_rate": 3e-4, "epochs": 5, "loss": {"_target_": "ce"}},
    "seed": 0,
    "objective": "valid/loss",
    "resume": "auto",
}
SAME = {"model": "bert", "trainer/loss": "cross_entropy", "experiment": "quick"}


def changed(composed, typed, now=SAME, then=SAME):
    return merge_for_resume(SAVED, composed, typed, (then, now), conf_dir())


def test_what_was_not_typed_stays_as_it_was_saved():
    merged, changes = changed(DEFAULTS, ["resume=auto"])
    assert changes == {}
    assert merged == SAVED | {"resume": "auto"}


def test_a_typed_free_key_changes_even_to_its_default():
    merged, changes = changed(DEFAULTS, ["trainer.epochs=5", "data.batch_size=32", "resume=auto"])
    assert changes == {"trainer.epochs": (3, 5), "data.batch_size": (8, 32)}
    assert (merged["trainer"]["epochs"], merged["trainer"]["learning_rate"]) == (5, 1e-3)


def test_a_group_typed_as_it_was_means_nothing():
    assert changed(DEFAULTS, ["model=bert", "experiment=quick"])[1] == {}


def test_another_option_of_a_group_brings_its_whole_package():
    composed = DEFAULTS | {"trainer": DEFAULTS["trainer"] | {"loss": {"_target_": "focal", "gamma": 2.0}}}
    now = SAME | {"trainer/loss": "focal"}
    merged, changes = changed(composed, ["trainer/loss=focal"], now)
    assert merged["trainer"]["loss"] == {"_target_": "focal", "gamma": 2.0}
    assert set(changes) == {"trainer.loss._target_", "trainer.loss.gamma"}


def test_an_experiment_brings_the_keys_it_sets_and_no_others():
    now = SAME | {"experiment": "quick"}
    composed = DEFAULTS | {
        "trainer": DEFAULTS["trainer"] | {"epochs": 1},
        "data": DEFAULTS["data"] | {"batch_size": 16},
        "model": DEFAULTS["model"] | {"num_layers": 4},  # the size that the experiment chooses is the saved one
    }
    with pytest.raises(ConfigError, match=r"model\.num_layers"):
        changed(composed | {"model": DEFAULTS["model"] | {"num_layers": 8}}, ["model.num_layers=8"], now)
    merged, _ = changed(composed, ["experiment=quick"], now, SAME | {"experiment": "standard"})
    assert (merged["trainer"]["epochs"], merged["data"]["batch_size"], merged["seed"]) == (1, 16, 4)


@pytest.mark.parametrize("key", ["seed=1", "data.fold=2", "objective=valid/f1"])
def test_a_frozen_key_is_refused_by_name(key):
    name, value = key.split("=")
    composed = {**DEFAULTS}
    if "." in name:
        composed["data"] = DEFAULTS["data"] | {"fold": int(value)}
    else:
        composed[name] = value
    with pytest.raises(ConfigError, match=f"^{name}={value}: was .* may not change"):
        changed(composed, [key])


def test_every_key_has_a_class():
    assert [key_class(key) for key in ("trainer.epochs", "model.dropout", "model.width", "data.source", "seed")] == [
        "free",
        "free",
        "structural",
        "frozen",
        "frozen",
    ]


def test_a_checkpoint_of_an_older_version_gets_the_defaults_of_keys_it_did_not_have():
    newer = DEFAULTS | {"data": DEFAULTS["data"] | {"select": None}, "company": 1}
    merged, changes = changed(newer, ["resume=auto"])
    assert changes == {}
    assert merged == SAVED | {"resume": "auto", "data": SAVED["data"] | {"select": None}, "company": 1}
    other = newer | {"data": newer["data"] | {"_target_": "other"}}
    assert "select" not in changed(other, ["resume=auto"])[0]["data"]
