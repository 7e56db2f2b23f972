"""Credentials in URLs never reach a terminal or a file."""

import pytest

from mlxlab.terminal.redact import has_credentials, issue_line, redact, redact_secrets

SECRET = [
    "http://user:hunter2@host/path",
    "https://hunter2@host",
    "http://user:hun/ter2@host/x",
    "http://user:hunter2?x#y@host/x",
    "http://user:/hunter2@host",
    "http://user:?hunter2@host",
    "http://user:#hunter2@host",
    "tracking.uri=postgresql://me:/hunter2@db/mlflow",
    "http://user:p@hunter2@host",
    "mysql+pymysql://user:hunter2@host:3306/db",
    "https://host/file?token=hunter2",
    "https://host/file?raw=true&password=hunter2",
    "https://host/file#access_token=hunter2",
    "see http://a/b,http://u:hunter2@c/d",
    "https://host/?X-Amz-Signature=hunter2&download=true",
    "http://[::1]:80/?sig=hunter2",
    "data.source='https://user:hunter2@host/a.jsonl' and more",
]
HARMLESS = [
    "sqlite:////tmp/mlflow.db",
    "https://huggingface.co/datasets/x@main/file.jsonl",
    "http://localhost:5000",
    "http://[::1]:5000/x",
    "https://host/file.jsonl?download=true",
    "hf://owner/name",
    "a@b.c: no URL",
]


@pytest.mark.parametrize("text", SECRET)
def test_credentials_are_recognised_and_removed(text):
    assert has_credentials(text)
    assert "hunter2" not in redact(text)
    assert "ter2@" not in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_an_address_without_credentials_stays_as_it_is(text):
    assert not has_credentials(text)
    assert redact(text) == text


def test_what_is_around_a_url_stays_as_it_is():
    expected = "before http://***@host:1/x?a=***&c=*** after"
    assert redact("before http://u:p@host:1/x?a=b&c=d after") == expected
    for text in ("tracking.uri=gopher://x: expected another", "sqlite://: expected a file"):
        assert redact(text) == text


def test_long_texts_are_redacted_in_linear_time():
    assert redact("a" * 1_000_000 + "://") != ""
    assert redact("http://" * 100_000)


def test_keys_and_passwords_in_source_code_are_removed():
    code = "tokenizer = load_tokenizer(folder_of_tokenizer)\n"
    text = f"{code}api_key: 'abcdefgh'\nSECRET=abcdefghij1234567890\nAKIA0123456789ABCDEF"
    expected = f"{code}api_key: ***\nSECRET=***\n***"
    assert redact_secrets(text) == expected
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"
    assert redact_secrets(key) == "***-----END RSA PRIVATE KEY-----"
    for hostile in ("token" * 50_000, "password=" * 30_000, "-----BEGIN PRIVATE KEY-----" * 10_000):
        redact_secrets(hostile)  # in linear time


@pytest.mark.parametrize(
    ("label", "meant", "shown", "more"),
    [
        ("max_token=5", "max_tokens", "max_token=5", ""),
        ("a.max_token=null", "a.max_tokens", "a.max_token=null", ""),
        ("token=hf_x1", "tokens", "token=***", ""),
        ("api_ky=5", "", "api_ky=5", ""),
        ("password=5", "", "password=***", "; credentials are read from the environment only as M"),
        ("tokn=5", "token", "tokn=5", ""),
        ("tokens.token=5", "api_token", "tokens.token=***", "; credentials are read"),
    ],
)
def test_a_misspelt_key_is_no_secret_if_the_key_that_was_meant_is_none(label, meant, shown, more):
    message = f"unknown key; did you mean {meant}?" if meant else "unknown key"
    line = issue_line(label, message)
    assert line.startswith(f"{shown}: {message}{more}")
    assert bool(more) == ("credentials" in line)
