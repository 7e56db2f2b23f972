"""The JSON schema of config files: all shipped ones are valid by it, and mistakes are not."""

import json
import re

import jsonschema
import pytest

from mlxlab.cli.main import main
from mlxlab.cli.schema import json_schema
from mlxlab.config.paths import conf_dir
from mlxlab.files.yaml_file import read_yaml

FILES = [
    path.relative_to(conf_dir()).with_suffix("").as_posix()
    for path in sorted(conf_dir().rglob("*.yaml"))
    if "hydra" not in path.parts
]


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft7Validator(json_schema())


def whole_config(name):
    """What a file sets, at its place in the config."""
    file = read_yaml(conf_dir() / f"{name}.yaml")
    package = name.rpartition("/")[0].replace("/", ".")
    if header := re.search(r"^# *@package +(\S+)", file.text, re.MULTILINE):
        package = header[1].removeprefix("_global_")
    values = {**file.values}
    values.pop("defaults", None)
    for key in filter(None, reversed(package.split("."))):
        values = {key: values}
    return values


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_is_valid(validator, name):
    validator.validate(whole_config(name))


def test_an_interpolation_is_valid(validator):
    validator.validate({"trainer": {"learning_rate": "${oc.env:MLXLAB_RATE}"}})


@pytest.mark.parametrize(
    "values",
    [
        {"trainr": {"learning_rate": 1e-3}},
        {"trainer": {"learning_rat": 1e-3}},
        {"trainer": {"learning_rate": -1e-3}},
        {"trainer": {"loss": {"_target_": "mlxlab.models.bert.Bert"}}},
        {"trainer": {"loss": {"_target_": "mlxlab.models.ensemble.true_class_confidence"}}},
        {"seed": 1.5},
    ],
    ids=str,
)
def test_a_mistake_is_found(validator, values):
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(values)


def test_the_command_prints_it(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert main(["schema", "group=modl"]) == 2
    assert "model" in capsys.readouterr().err
