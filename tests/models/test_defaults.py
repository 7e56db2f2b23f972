"""Defaults of the constructors and of `conf/model`, which are the same models in Python and on the command line."""

import inspect
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from mlxlab.config.instantiate import import_target
from mlxlab.config.paths import conf_dir
from mlxlab.models.options import LoRA, ModelOptions, split_node

MODELS = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml"))


def load(name):
    return OmegaConf.to_container(OmegaConf.load(conf_dir() / "model" / f"{name}.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_constructor_defaults_equal_those_of_the_config(name):
    config = load(name)
    options, node = split_node(config.get("model", config))
    parameters = inspect.signature(import_target(node.pop("_target_"))).parameters
    assert node.keys() <= parameters.keys()
    for key, value in node.items():
        default = parameters[key].default
        if value == "???":
            assert default is inspect.Parameter.empty, key
        else:
            assert (list(default) if isinstance(default, tuple) else default) == value, key
    assert OmegaConf.create(asdict(options)) == OmegaConf.create(asdict(ModelOptions()))


def test_adapters_have_the_defaults_of_the_config():
    for name, dora in (("lora", False), ("dora", True)):
        adapter = split_node({"adapter": load(f"adapter/{name}")})[0].adapter
        assert OmegaConf.create(asdict(adapter)) == OmegaConf.create(asdict(LoRA(dora=dora)))
