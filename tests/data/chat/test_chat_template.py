"""Chat templates: what they render, where they are found, and what their process keeps them from doing."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from mlxlab.data.chat import chat_template, sandbox
from mlxlab.data.chat.chat_template import (
    ChatTemplate,
    TemplateError,
    load_template,
)
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.errors import DataError

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["user assistant Hi Hello"] * 3, 300, 1)


def template(source):
    return ChatTemplate(source, "mine.jinja", "<s>", "</s>")


def request(messages=MESSAGES, learned=()):
    return {"messages": messages, "answers": [1], "learned": learned}


def test_a_template_has_the_functions_of_transformers():
    source = "{{ bos_token }}{{ messages | tojson }}{% for m in messages %}{% break %}{% endfor %}"
    assert template(source).render(MESSAGES) == "<s>" + json.dumps(MESSAGES)
    assert template("  {% if true %}\nx\n  {% endif %}\n").render(MESSAGES) == "x\n"
    assert template("{{ strftime_now('%d %b %Y') }}").render(MESSAGES) == "01 Jan 2025"
    assert template("{{ '%s-%d' | format('a', 3) }}").render(MESSAGES) == "a-3"
    with pytest.raises(TemplateError, match=r"mine\.jinja: the template failed: roles must alt"):
        template("{{ raise_exception('roles must\n alternate') }}").render(MESSAGES)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{{% set n = namespace(s='xxxx') %}}{{% for i in range(99) %}}{{% set n.s = {} %}}{{% endfor %}}"
NESTED_LIST = "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}"
TOO_LONG = r"took more than 0\.5 s"
LIMIT = "took more than|MemoryError|crashed"  # Which of them depends on the machine.
FAILS = f"the template failed|{TOO_LONG}"  # On a busy machine it takes too long.
HOSTILE = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "unsafe",
    "{{ cycler.__init__.__globals__ }}": "unsafe",
    "{{ messages.clear() }}": "unsafe",
    "{{ messages[0].update(role='system') }}": "unsafe",
    LOOP: TOO_LONG,
    "{{ 9 ** 99999999 }}": TOO_LONG,
    NESTED_LIST: LIMIT,
    "{{ ('x ' * 5000000) | wordwrap(1) }}": LIMIT,
    "{% for a in range(10 ** 9) %}{% endfor %}": "Range too big",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion depth",
    "{{ 'x' * 10 ** 10 }}": LIMIT,
    "{{ ['x' * 16000000] * 1000000 }}": LIMIT,
    "{{ ''.join(['x' * 10000000] * 1000) }}": LIMIT,
    "{{ ('a' * 10 ** 6).translate({97: 'b' * 16000000}) }}": LIMIT,
    "{% for i in range(100000) %}{{ 'x' * 16000000 }}{% endfor %}": LIMIT,
    "{{ '%10000000000d' % 3 }}": LIMIT,
    "{{ 'x'.ljust(10000000000) }}": LIMIT,
    "{{ ('x' * 10000000).replace('x', 'y' * 10000) }}": LIMIT,
    DOUBLING.format("n.s ~ n.s"): LIMIT,
    DOUBLING.format("n.s + n.s"): LIMIT,
    "{% include 'x' %}": "no loader",
    "{% if %}": r"mine\.jinja:1: ",
    "{{ missing.attribute }}": "undefined",
    "{{ raise_exception('\x1b[31m\x9b') }}": r"the template failed: \[31m",
    "{{ '\\ud800' }}": "surrogates",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": FAILS,
    "{{ " + "-" * 5000 + "1 }}": FAILS,
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000: FAILS,
    "{{ x" + ".a" * 20000 + " }}": FAILS,
    "{{ 1" + " + 1" * 20000 + " }}": FAILS,
}


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[:40])
def test_a_template_that_would_escape_or_never_end_fails_in_one_line(source, monkeypatch):
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.5)
    start = time.process_time()
    with pytest.raises(TemplateError, match=HOSTILE[source]) as error:
        template(source).render(MESSAGES)
    assert str(error.value).startswith("mine.jinja")
    assert str(error.value).isprintable()
    assert time.process_time() - start < 1, "the work is that of another process"


def test_a_text_of_32_million_characters_is_refused():
    with pytest.raises(TemplateError, match="33554432 characters"):
        template("{{ 'x' * 2 ** 25 }}").render(MESSAGES)


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac does not limit the memory of a process")
def test_the_process_has_a_limit_of_memory_and_no_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    mine = template("{{ messages[0].content }}")
    mine.render(MESSAGES)
    process = psutil.Process(mine._process.pid)
    assert process.rlimit(psutil.RLIMIT_AS)[1] <= sandbox.MAX_MEMORY
    assert "HF_TOKEN" not in process.environ()


def test_after_a_conversation_that_takes_too_long_others_are_rendered(monkeypatch):
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.3)
    mine = template(
        "{% if messages | length > 1 %}" + LOOP + "{% endif %}{{ messages[0].content }}"
    )
    with pytest.raises(TemplateError, match="took more than"):
        mine.render(MESSAGES)
    assert mine.render(MESSAGES[:1]) == "Hi"


def test_a_fault_of_one_conversation_is_no_fault_of_others():
    mine = template("{{ messages[0].content }}{{ raise_exception('no') if messages|length > 1 }}")
    replies = mine.answer([request(MESSAGES[:count]) for count in (1, 2, 1)])
    assert ["error" in reply for reply in replies] == [False, True, False]
    assert replies[0]["text"] == replies[2]["text"] == "Hi"


def test_the_process_ends_with_the_template_and_with_its_parent():
    mine = template("{{ messages[0].content }}")
    mine.render(MESSAGES)
    number = mine._process.pid
    del mine
    assert not psutil.pid_exists(number)
    code = (
        "import os, signal\n"
        "from mlxlab.data.chat.chat_template import ChatTemplate\n"
        "template = ChatTemplate('x', 'x', '', '')\n"
        "template.answer([])\n"
        "print(template._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    killed = subprocess.run(command, capture_output=True, env=environment, check=False)
    number = int(killed.stdout)
    deadline = time.monotonic() + 10
    while _is_running(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(number)


def _is_running(number):
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_module_of_the_working_directory_is_imported(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert template("a").render(MESSAGES) == "a"


def test_a_template_is_found_in_the_folder_of_its_tokenizer(tmp_path, tokenizer):
    assert load_template(tmp_path, tokenizer) is None
    config = {
        "chat_template": "config",
        "bos_token": {"content": "<b>", "lstrip": False},
        "model_max_length": 1000000000000000019884624838656,  # as save_pretrained writes it
        "added_tokens_decoder": {"0": {"content": [1]}},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = load_template(tmp_path, tokenizer)
    assert (found.source, found.bos_token, found.eos_token) == ("config", "<b>", "<eos>")
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert load_template(tmp_path, tokenizer).source == "d"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert load_template(tmp_path, tokenizer).source == "file"
    template("{{ eos_token }}").save(tmp_path)
    restored = load_template(tmp_path, tokenizer)
    assert restored.source == "{{ eos_token }}"
    assert (restored.bos_token, restored.eos_token) == ("<s>", "</s>")


def test_links_are_followed_from_a_download_but_not_from_a_run(tmp_path, tokenizer):
    (tmp_path / "elsewhere").write_text("linked")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "chat_template.jinja").symlink_to(tmp_path / "elsewhere")
    assert load_template(tmp_path / "folder", tokenizer).source == "linked"
    (tmp_path / "folder" / "config.yaml").touch()
    with pytest.raises(DataError, match="regular file"):
        load_template(tmp_path / "folder", tokenizer)


@pytest.mark.parametrize(
    "config",
    [
        {"chat_template": 7},
        {"chat_template": [{"name": "tools", "template": "t"}]},
        {"chat_template": "a", "bos_token": [1]},
    ],
)
def test_a_malformed_tokenizer_config_is_one_line(tmp_path, tokenizer, config):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        load_template(tmp_path, tokenizer)
