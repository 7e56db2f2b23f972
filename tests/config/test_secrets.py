"""Credentials in a config: refused before anything is written, and never shown."""

import pytest

from mlxlab.cli.command import parse_args
from mlxlab.config.check import read_environment
from mlxlab.errors import ConfigError
from support.configs import line, user_config  # noqa: F401

OVERRIDES = [
    "tracking.uri=http://user:hunter2@host",
    "tracking.uri='http://user:hun/ter2@host'",
    "data.source='https://host/a.jsonl?token=hunter2'",
    "data.source='https://hunter2@host/a.jsonl'",
    "+tags.where='https://user:hunter2@host'",
    "nonsense.key='https://user:hunter2@host'",
]


@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("flags", [(), ("--cfg", "job"), ("-m",)], ids=["run", "cfg", "sweep"])
def test_credentials_typed_on_the_command_line_are_refused_unseen(line, override, flags):
    message = line.refuses(override, *flags, code=77)
    assert "ter2" not in message
    assert "credentials" in message


@pytest.mark.parametrize(
    ("override", "shown", "variable"),
    [
        ("cloud.secret_access_key=hunter2", "cloud.secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("+cloud={sas_token: hunter2}", "cloud.sas_token", "AZURE_STORAGE_SAS_TOKEN"),
        ("tracking.passwd=hunter2", "tracking.passwd", "environment only"),
    ],
)
def test_an_unknown_key_that_may_be_a_secret_is_named_without_its_value(
    line, override, shown, variable
):
    message = line.refuses(override)
    assert "hunter2" not in message
    assert f"{shown}=***: unknown key" in message
    assert variable in message
    assert "trainer.max_tokenz=7: unknown key" in line.refuses("trainer.max_tokenz=7")


def test_an_option_that_may_be_a_secret_is_named_without_its_value():
    with pytest.raises(ConfigError) as caught:
        parse_args(["--api-token=hunter2"], "mlxlab.cli.verify.verify")
    assert "hunter2" not in str(caught.value)


def test_credentials_in_a_config_file_are_refused_unseen(line, user_config):
    flags = user_config("# @package _global_\ntags: {a: 'https://user:hunter2@host'}\n")
    message = line.refuses(*flags, code=77)
    assert "hunter2" not in message
    assert "refused: a URL with credentials" in message


@pytest.mark.parametrize("name", ["PGPASSFILE", "NETRC", "SLACK_WEBHOOK", "JWT", "DB_CONN"])
def test_only_listed_environment_variables_can_be_read(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(
        ConfigError, match=f"{name} cannot be read in a config.*; name it MLXLAB_{name}$"
    ):
        read_environment(name)


def test_a_url_with_credentials_in_the_environment_is_not_read(monkeypatch):
    monkeypatch.setenv("MLXLAB_STORE_URL", "http://user:hunter2@host")
    with pytest.raises(ConfigError) as caught:
        read_environment("MLXLAB_STORE_URL")
    assert "hunter2" not in str(caught.value)
