"""Defaults of the constructors and of `conf/model`, which are the same models in Python and on the command line."""

import inspect

import pytest
from omegaconf import OmegaConf

from mlxlab.config.instantiate import import_target
from mlxlab.config.paths import conf_dir

MODELS = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_constructor_defaults_equal_those_of_the_config(name):
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / "model" / f"{name}.yaml"))
    parameters = inspect.signature(import_target(node.pop("_target_"))).parameters
    assert node.keys() <= parameters.keys()
    for key, value in node.items():
        default = parameters[key].default
        if value == "???":
            assert default is inspect.Parameter.empty, key
        else:
            assert (list(default) if isinstance(default, tuple) else default) == value, key
