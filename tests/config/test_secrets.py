"""Credentials in a config: refused before anything is written, and never shown."""

import pytest

from mlxlab.config.check import read_environment
from mlxlab.errors import ConfigError
from support.configs import line, user_config  # noqa: F401

OVERRIDES = [
    "tracking.uri=http://user:hunter2@host",
    "tracking.uri='http://user:hun/ter2@host'",
    "data.source='https://host/a.jsonl?token=hunter2'",
    "data.source='https://hunter2@host/a.jsonl'",
    "+tags.where='https://user:hunter2@host'",
    "tags={'https://user:hunter2@host': 1}",
    "callbacks.csv.path='https://user:hunter2@host'",
    "nonsense.key='https://user:hunter2@host'",
    "trainer.epochs='https://user:hunter2@host'",
]


@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("flags", [(), ("--cfg", "job"), ("-m",)], ids=["run", "cfg", "sweep"])
def test_credentials_typed_on_the_command_line_are_refused_unseen(line, override, flags):  # noqa: F811
    message = line.refuses(override, *flags, code=77)
    assert "ter2" not in message
    assert "credentials" in message


def test_credentials_in_a_config_file_are_refused_unseen(line, user_config):  # noqa: F811
    message = line.refuses(*user_config("# @package _global_\ntags: {a: 'https://user:hunter2@host'}\n"), code=77)
    assert "hunter2" not in message
    assert "mine.yaml:2: tags.a: refused: a URL with credentials" in message


@pytest.mark.parametrize(
    "name",
    ["PGPASSFILE", "NETRC", "SLACK_WEBHOOK", "OPENAI", "JWT", "ACCESS", "PASS", "DSN", "BEARER", "DB_CONN", "MY_CERT"],
)
def test_only_listed_environment_variables_can_be_read(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(ConfigError, match=f"{name} cannot be read in a config.*; name it MLXLAB_{name}$"):
        read_environment(name)


def test_listed_environment_variables_are_read(monkeypatch):
    monkeypatch.setenv("MLXLAB_CORPUS", "/data/x")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert read_environment("MLXLAB_CORPUS") == "/data/x"
    assert read_environment("SLURM_JOB_ID", 0) == "0"


def test_a_url_with_credentials_in_the_environment_is_not_read(monkeypatch):
    monkeypatch.setenv("MLXLAB_STORE_URL", "http://user:hunter2@host")
    with pytest.raises(ConfigError) as caught:
        read_environment("MLXLAB_STORE_URL")
    assert "hunter2" not in str(caught.value)
