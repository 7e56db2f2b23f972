"""Scaling schedules of the GPT trainer become operations of `callbacks.growth`."""

import json

import pytest
from omegaconf import OmegaConf

from mlxlab.cli.translate import check
from mlxlab.cli.translate.growth_schedule import CHANGES, DROPPED
from mlxlab.cli.translate.translation import translate
from mlxlab.config.hydra.compose import Composer
from mlxlab.config.paths import shipped_conf
from mlxlab.errors import ConfigError, DataError

VALUES = {
    "set_lr": 1e-3,
    "stack_layers": [0, 0, 1, 1],
    "set_layer_lora_rank": ["attn.0", 4],
    "resize_vocabulary": [5, 0.02],
    "set_curriculum_alpha": 0.5,
    "freeze_layer": "mlp.1",
    "unfreeze_layer": "wte",
    "merge_lora_weights": None,
    "reset_lr_schedule": None,
    "disable_vocab_remapping": None,
}
REMAPPED = "--shrunken_vocab_size=1000"


def entry(name, value, loss=4.0, wait=2000, reevaluate=False):
    return {
        "name": name, "value": value, "trigger_loss": loss, "max_wait_iters": wait, "reevaluate": reevaluate, "desc": ""
    }  # fmt: skip


def operations(result):
    config = Composer(
        shipped_conf(), [*result.overrides, "objective=valid/bits_per_byte"]
    ).checked()
    return OmegaConf.to_container(config.callbacks.growth.operations)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_schedule_file_becomes_operations(tmp_path, suffix):
    entries = [
        entry("set_warmup_iters", 500, None, 10),
        entry("widen_mlp", 3072, 4.5, 20, True),
        entry("set_batch_size", 6, 4.0, None),
        entry("change_lr", 0.5, None, 30),
        entry("reset_lr_schedule", None, 3.8, 40),
    ]
    file = tmp_path / f"schedule.{suffix}"
    file.write_text(
        json.dumps(entries) if suffix == "json" else OmegaConf.to_yaml(OmegaConf.create(entries))
    )
    result = translate(
        f"python train.py --scaling_schedule_file={file} --learning_rate=1e-3 --n_layer=6"
    )
    assert operations(result) == [
        {"id": "widen_mlp_1", "op": "widen", "feed_forward": 3072, "when": {"metric_below": 4.5, "or_steps": 20},
         "then": "evaluate"},
        {"id": "set_batch_size_2", "op": "set_batch_size", "batch_size": 240, "when": {"metric_below": 4.0}},
        {"id": "set_batch_size_3", "op": "set_accumulation", "accumulate": 40,
         "when": {"metric_below": 4.0, "or_steps": 1}},
        {"id": "change_lr_4", "op": "set_learning_rate", "learning_rate": 0.0005, "when": {"or_steps": 30}},
        {"id": "reset_lr_schedule_5", "op": "rewarm", "steps": 500, "restart": True,
         "when": {"metric_below": 3.8, "or_steps": 40}},
    ]  # fmt: skip
    assert f"{file}: set_warmup_iters: counts from the next reset_lr_schedule" in result.notes


def test_every_old_operation_has_one_here_or_a_reason():
    entries = [entry(name, VALUES.get(name, 2)) for name in CHANGES]
    result = translate(f'python train.py {REMAPPED} "--scaling_schedule={entries}"')
    translated = {operation["id"].rpartition("_")[0] for operation in operations(result)}
    explained = {
        name for name in CHANGES if f"scaling_schedule: {name}: {DROPPED.get(name)}" in result.notes
    }
    assert translated | explained == set(CHANGES)
    assert explained == set(DROPPED)


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        (
            [entry("stack_layer", [0])],
            ConfigError,
            "stack_layer: unknown operation; did you mean stack_layers?",
        ),
        ([entry("freeze_layer", "atn.0")], ConfigError, "did you mean attn?"),
        ([{"name": "set_lr"}], DataError, "is missing"),
        ({"a": 1}, DataError, "expected list"),
        ([entry("set_lr", "fast")], ConfigError, "expected a number"),
    ],
)
def test_a_malformed_schedule_is_refused(entries, error, message):
    with pytest.raises(error) as caught:
        translate(f'python train.py "--scaling_schedule={entries}"')
    assert message in str(caught.value)


def test_a_schedule_that_cannot_be_composed_is_refused():
    with pytest.raises(ConfigError, match="map"):
        check(
            translate(
                f'python train.py "--scaling_schedule={[entry("stack_layers", 2)]}"'
            ).overrides
        )
