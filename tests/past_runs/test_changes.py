"""What a resume may change: the checkpoint's config is the base, only what was typed counts."""

import pytest

from mlxlab.checkpoint.state import empty_metadata
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError, DataError
from mlxlab.past_runs.changes import (
    CommandLine,
    continuations,
    merge_for_resume,
    model_changes,
    record_changes,
)
from mlxlab.record.run_record import Continuation
from mlxlab.views.commands import continuing_lines

SAVED = {
    "model": {"_target_": "a", "hidden_size": 128, "num_layers": 4, "dropout": 0.3},
    "data": {"_target_": "d", "batch_size": 8, "fold": 1},
    "trainer": {"learning_rate": 1e-3, "epochs": 3, "loss": {"_target_": "ce"}},
    "seed": 4,
    "objective": "valid/loss",
    "resume": None,
}
DEFAULTS = {
    "model": {"_target_": "a", "hidden_size": 128, "num_layers": 6, "dropout": 0.1},
    "data": {"_target_": "d", "batch_size": 32, "fold": 0},
    "trainer": {"learning_rate": 3e-4, "epochs": 5, "loss": {"_target_": "ce"}},
    "seed": 0,
    "objective": "valid/loss",
    "resume": "auto",
}
SAME = {"model": "bert", "trainer/loss": "cross_entropy", "experiment": "quick"}


def edited(config, node, **fields):
    return config | {node: config[node] | fields}


def resumed(composed, typed, now=SAME, then=SAME, saved=SAVED, before=()):
    return merge_for_resume(saved, composed, typed, (then, now), [conf_dir()], before)


@pytest.mark.parametrize(
    ("typed", "changes"),
    [
        ([], {}),
        (["model=bert", "experiment=quick"], {}),  # the saved options
        (["trainer.epochs=5", "data.batch_size=32"], {"epochs": (3, 5), "batch_size": (8, 32)}),
        (["model.num_layers=6"], {"num_layers": (4, 6)}),  # It is judged later.
    ],
)
def test_only_typed_keys_change_also_to_their_defaults(typed, changes):
    merged, found = resumed(DEFAULTS, [*typed, "resume=auto"])
    assert {key.rpartition(".")[2]: pair for key, pair in found.items()} == changes
    for node in ("model", "data", "trainer"):
        new = {key: value for key, (_, value) in changes.items() if key in SAVED[node]}
        assert merged[node] == SAVED[node] | new
    assert (merged["seed"], merged["resume"]) == (4, "auto")


def test_another_option_of_a_group_sets_its_whole_package():
    composed = edited(DEFAULTS, "trainer", loss={"_target_": "focal", "gamma": 2.0})
    merged, changes = resumed(composed, ["trainer/loss=focal"], SAME | {"trainer/loss": "focal"})
    assert merged["trainer"]["loss"] == {"_target_": "focal", "gamma": 2.0}
    assert set(changes) == {"trainer.loss._target_", "trainer.loss.gamma"}


def test_a_key_typed_before_survives_another_option_of_its_group_that_has_it():
    saved = edited(SAVED, "trainer", loss={"_target_": "focal", "gamma": 2})
    choices = (SAME | {"trainer": "optimized"}, SAME | {"trainer": "simple"})
    typed_before = ["trainer.epochs=3", "trainer.loss.gamma=2", "model=bert"]

    def merged(trainer, *more, before=typed_before):
        composed = DEFAULTS | {"trainer": trainer}
        typed = ["trainer=optimized", *more]
        return resumed(composed, typed, *choices, saved, before)[0]["trainer"]

    trainer = DEFAULTS["trainer"] | {"step": {"_target_": "optimized", "accumulate": 1}}
    assert merged(trainer, before=()) == trainer
    assert merged(trainer) == trainer | {"epochs": 3}, "the loss is another one, without that key"
    other = trainer | {"loss": {"_target_": "other", "gamma": 1}}
    assert merged(other) == other | {"epochs": 3}, "a key of another class"
    assert merged(other, "trainer.epochs=5") == other


def test_another_size_replaces_the_keys_typed_before():
    composed = edited(DEFAULTS, "model", hidden_size=256)
    now, then = (SAME | {"model/size": size} for size in ("tiny", "nano"))
    typed, before = ["model/size=tiny"], ["model.hidden_size=128"]
    _, changes = resumed(composed, typed, now, then, before=before)
    assert changes == {"model.hidden_size": (128, 256), "model.num_layers": (4, 6)}


def test_an_experiment_sets_only_its_own_keys():
    composed = edited(edited(DEFAULTS, "trainer", epochs=1), "data", batch_size=16)
    composed = edited(composed, "model", num_layers=4)  # that of the size that it chooses
    merged, _ = resumed(composed, ["experiment=quick"], then=SAME | {"experiment": "standard"})
    assert (merged["trainer"]["epochs"], merged["data"]["batch_size"], merged["seed"]) == (1, 16, 4)


@pytest.mark.parametrize(
    ("typed", "composed"),
    [
        ("seed=1", DEFAULTS | {"seed": 1}),
        ("data.fold=2", edited(DEFAULTS, "data", fold=2)),
        ("objective=valid/f1", DEFAULTS | {"objective": "valid/f1"}),
    ],
)
def test_a_frozen_key_is_refused_by_name(typed, composed):
    with pytest.raises(ConfigError, match=f"^{typed}: was .* cannot change"):
        resumed(composed, [typed])


@pytest.mark.parametrize("key", ["/x/a.txt", "a.b.c", "it's", "[0]", ""])
def test_mapping_keys_with_dots_and_quotes_survive_a_resume(key):
    saved = edited(SAVED, "data", mixture={key: 3, "other": 1})
    assert resumed(saved, ["trainer.epochs=3"], saved=saved) == (saved, {})


def test_a_changed_mapping_is_refused_with_its_key_quoted():
    saved, composed = (edited(SAVED, "data", mixture={"/x/a.txt": share}) for share in (3, 4))
    with pytest.raises(ConfigError, match=r"^data\.mixture\['/x/a\.txt'\]=4: was 3"):
        resumed(composed, ["data.mixture={/x/a.txt: 4}"], saved=saved)


def test_a_damaged_record_of_changes_is_refused(tmp_path):
    (tmp_path / "resume_changes.json").write_text('{"step": 1}')
    with pytest.raises(DataError, match=r"resume_changes\.json"):
        record_changes(tmp_path, 5, {"trainer.epochs": (2, 4)})


def test_a_node_that_takes_the_place_of_null_is_one_change():
    lora = {"_target_": "lora", "rank": 8, "targets": None}
    saved, composed = (edited(SAVED, "model", adapter=each) for each in (None, lora))
    now = SAME | {"model/adapter": "lora"}
    merged, changes = resumed(composed, ["model/adapter=lora"], now, saved=saved)
    assert changes == {"model.adapter": (None, lora)}
    _, back = resumed(saved, ["model/adapter=none"], then=now, saved=merged)
    assert back == {"model.adapter": (lora, None)}


def continuation(step, *overrides, **model):
    return {
        "step": step,
        "overrides": [*overrides],
        "model": {f"model.{key}": value for key, value in model.items()},
        "forked": False,
    }


def test_changes_of_the_model_are_recorded_and_those_of_the_trainer_are_not():
    command = CommandLine([], {}, [], ["trainer.max_steps=60"])
    earlier = [continuation(10, "a=1", num_layers=(1, 2)), continuation(20, "b=1")]
    before = empty_metadata() | {"continued": earlier}
    # The rank has grown from 4 in the run.
    at, changes = (50, {"adapter": {"rank": 8}}), {"model.adapter.rank": (4, 16)}
    changes |= {"trainer.max_steps": (50, 60), "model.dropout": (0.1, 0.0)}
    own = continuations(command, before, *at, changes, continues=True)
    last = continuation(50, "trainer.max_steps=60", **{"adapter.rank": (8, 16)})
    assert own == [*earlier, last]
    assert list(model_changes(Continuation(**each) for each in own)) == [
        (10, "by a resume: model.num_layers 1 -> 2"),
        (50, "by a resume: model.adapter.rank 8 -> 16"),
    ]
    fork = continuations(command, before, *at, changes, continues=False)
    lines = continuing_lines([Continuation(**each) for each in fork])
    assert lines == [], "those of another run"
