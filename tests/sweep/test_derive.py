"""A job that differs from another one in values alone is that which Hydra composes."""

import pytest
from omegaconf import OmegaConf

from mlxlab.config.hydra.compose import compose
from mlxlab.config.hydra.job import set_number
from mlxlab.sweep.derive import derive
from support.configs import line  # noqa: F401

FIXED = ["experiment=titanic", "tracking=none", "model.dropout=0.1", "+tags.a=1"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["seed=0"], ["seed=3"]),
        (["seed=0", "trainer.max_steps=2"], ["seed=1", "trainer.max_steps=null"]),
        (["trainer.learning_rate=1e-4"], ["trainer.learning_rate=0.01"]),
        (["seed=0", "trainer.max_steps=null"], ["seed=1", "trainer.max_steps=2"]),
        (["name=a"], ["name='b c: ${seed}'"]),
    ],
)
def test_values_are_set_as_hydra_sets_them(line, before, after):
    base = compose([*FIXED, *before])
    text = OmegaConf.to_yaml(base)
    job = derive(base, [*FIXED, *after])
    expected = compose([*FIXED, *after])
    set_number(job, 0)
    assert OmegaConf.to_yaml(job) == OmegaConf.to_yaml(expected)
    assert OmegaConf.to_yaml(base) == text
    with pytest.raises(Exception, match="not_there"):
        job.trainer.not_there = 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["model=bert"], ["model=transformer"]),
        (["trainer/schedule=linear"], ["trainer/schedule=cosine"]),
        (["seed=0"], ["seed=0", "resume=auto"]),
        (["seed=0"], ["seed=intervl(0)"]),
        (["trainer.schedule={warmup: 1}"], ["trainer.schedule={warmup: 2}"]),
        (["++model.dropout=0"], ["++model.dropout=0.2"]),
        (["hydra.job.chdir=true"], ["hydra.job.chdir=false"]),
    ],
)
def test_what_is_more_than_a_value_is_composed_by_hydra(line, before, after):
    assert derive(compose([*FIXED, *before]), [*FIXED, *after]) is None
