"""Configs that earlier versions saved: the keys that they lack have the values of the shipped options."""

import copy

import pytest
from omegaconf import OmegaConf

from mlxlab.config.hydra.compose import Composer, without_hydra
from mlxlab.config.paths import shipped_conf
from mlxlab.config.upgrade import fill_missing_keys

KEYS = [
    (["data=titanic"], "data.overfit_batches", None),
    (["data=titanic"], "data.batching", {"_target_": "mlxlab.data.loaders.bucketing.FixedBatchSize", "buckets": 7}),
    (["data=titanic"], "data.select.by", "mean"),
    (["data=streaming", "data.seq_len=64"], "data.shuffle_rows", 0),
    (["trainer=distill"], "trainer.teachers", []),
    (["trainer=optimized"], "trainer.ema", None),
    (["callbacks.memory.every=7"], "callbacks.checkpointing.keep", 2),
]


def composed(words):
    composer = Composer(shipped_conf(), words)
    return OmegaConf.to_container(without_hydra(composer.checked(composer.open())), resolve=True)


@pytest.mark.parametrize(("words", "path", "value"), KEYS, ids=[path for _, path, _ in KEYS])
def test_a_key_that_is_missing_gets_the_shipped_value(words, path, value):
    whole = composed(words)
    aged = copy.deepcopy(whole)
    *nodes, key = path.split(".")
    node = aged
    for name in nodes:
        node = node[name]
    assert node.pop(key) == value
    assert aged != whole
    assert fill_missing_keys(aged) == whole


def test_what_stands_there_stays_and_what_nobody_knows_is_left_alone():
    whole = composed(["trainer.learning_rate=7.0", "data.max_length=9"])
    assert fill_missing_keys(whole) == whole
    odd = {"_target_": "nowhere.Such", "x": [{"_target_": "mlxlab.data.titanic.dataset.Augment"}]}
    assert fill_missing_keys(odd) == {
        "_target_": "nowhere.Such",
        "x": [{"_target_": "mlxlab.data.titanic.dataset.Augment", "copies": 3}],
    }
