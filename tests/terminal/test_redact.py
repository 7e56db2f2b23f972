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


@pytest.mark.parametrize("text", HARMLESS)
def test_an_address_without_credentials_is_accepted(text):
    assert not has_credentials(text)


@pytest.mark.parametrize("text", [text for text in HARMLESS if "?" not in text])
def test_an_address_without_credentials_stays_as_it_is(text):
    assert redact(text) == text


def test_what_is_around_a_url_stays_as_it_is():
    assert (
        redact("before http://u:p@host:1/x?a=b&c=d after")
        == "before http://***@host:1/x?a=***&c=*** after"
    )


def test_a_colon_after_a_url_is_not_that_of_a_password():
    for text in ("tracking.uri=gopher://x: expected another", "sqlite://: expected a file"):
        assert redact(text) == text


def test_a_redacted_text_is_not_changed_again():
    assert all(redact(redact(text)) == redact(text) for text in SECRET)


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
    ("label", "meant", "line"),
    [
        ("max_token=5", "max_tokens", "max_token=5: unknown key; did you mean max_tokens?"),
        (
            "a.max_token=null",
            "a.max_tokens",
            "a.max_token=null: unknown key; did you mean a.max_tokens?",
        ),
        ("token=hf_x1", "tokens", "token=***: unknown key; did you mean tokens?"),
        ("api_ky=5", "", "api_ky=5: unknown key"),
        (
            "password=5",
            "",
            "password=***: unknown key; credentials are read from the environment only as MLFLOW",
        ),
        ("tokn=5", "token", "tokn=5: unknown key; did you mean token?"),
        (
            "tokens.token=5",
            "api_token",
            "tokens.token=***: unknown key; did you mean api_token?; credentials are read",
        ),
    ],
)
def test_a_misspelt_key_is_no_secret_if_the_key_that_was_meant_is_none(label, meant, line):
    assert issue_line(
        label, "unknown key" + (f"; did you mean {meant}?" if meant else "")
    ).startswith(line)
