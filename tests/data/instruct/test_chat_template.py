"""Chat templates: what they render, where they are found, and what the sandbox keeps them from doing."""

import json

import pytest

from mlxlab.data.instruct.chat_template import (
    DEFAULT,
    ChatTemplate,
    TemplateError,
    default_template,
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


def test_the_default_is_chatml_with_the_tokens_of_the_tokenizer(tokenizer):
    default = default_template(tokenizer)
    assert default.render(MESSAGES) == "<bos>user\nHi<eos>\n<bos>assistant\nHello<eos>\n"
    assert (
        default.render(MESSAGES[:1], add_generation_prompt=True)
        == "<bos>user\nHi<eos>\n<bos>assistant\n"
    )


def test_a_template_has_the_functions_of_transformers():
    source = "{{ bos_token }}{{ messages | tojson }}{% for m in messages %}{% break %}{% endfor %}"
    assert template(source).render(MESSAGES) == "<s>" + json.dumps(MESSAGES)
    assert template("{{ strftime_now('%d %b %Y') }}").render(MESSAGES) == "01 Jan 2025"
    with pytest.raises(
        TemplateError, match=r"mine\.jinja: the template failed: roles must alternate"
    ):
        template("{{ raise_exception('roles must\n alternate') }}").render(MESSAGES)


def test_the_limited_replace_is_that_of_jinja():
    source = (
        "{{ 'a-b-c' | replace('-', '+', 1) }} {{ 12 | replace(1, 3) }} {{ 'a-b'.replace('-', '') }}"
    )
    assert template(source).render(MESSAGES) == "a+b-c 32 ab"


def test_blocks_on_their_own_line_leave_no_space():
    assert template("  {% if true %}\nx\n  {% endif %}\n").render(MESSAGES) == "x\n"


def test_generation_blocks_are_located():
    source = (
        "{% for m in messages %}[{% generation %}{{ m.content }}{% endgeneration %}]{% endfor %}"
    )
    assert template(source).marks_answers
    assert template(source).render_spans(MESSAGES) == ("[Hi][Hello]", [(1, 3), (5, 10)])
    assert not template(DEFAULT).marks_answers
    with pytest.raises(TemplateError, match="noncharacter"):  # it would count as a mark
        template(source).render([{"role": "user", "content": "a\ufdd0b"}])


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{{% set n = namespace(s='xxxx') %}}{{% for i in range(99) %}}{{% set n.s = {} %}}{{% endfor %}}"
HOSTILE = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "unsafe",
    "{{ cycler.__init__.__globals__ }}": "unsafe",
    "{{ messages.clear() }}": "unsafe",
    "{{ messages[0].update(role='system') }}": "unsafe",
    LOOP: "stopped after 1000000 lines",
    "{% for a in range(10 ** 9) %}{% endfor %}": "Range too big",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
    "{{ 'x' * 10 ** 9 }}": "would build more",
    "{{ 'x' * (10 ** 5) * (10 ** 5) }}": "would build more",
    "{{ 9 ** 99999999 }}": "too large",
    "{{ '%1000000000d' % 3 }}": "does not format",
    "{{ '{:>1000000000}'.format(1) }}": "unsafe",
    "{{ 'x'.ljust(1000000000) }}": "unsafe",
    "{{ 'x' | urlize }}": "No filter named",
    "{{ ('x' * 10000) | replace('x', 'y' * 10000) }}": "replace would build",
    "{{ ('x' * 10000).replace('', 'y' * 10000) }}": "replace would build",
    "{{ (('x' * 10000) | safe).replace('x', 'y' * 10000) }}": "replace would build",
    "{{ 'x' | center(1000000000) }}": "No filter named",
    "{{ messages | tojson(indent=1000000000) }}": "expected an indent",
    DOUBLING.format("n.s ~ n.s"): "would build more",
    DOUBLING.format("n.s + n.s"): "would build more",
    "{% include 'x' %}": "no loader",
    "{% if %}": "line 1",
    "{{ missing.attribute }}": "undefined",
    "x" * 2**19: "larger than",
}


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[:30])
def test_a_template_that_would_escape_or_never_end_fails_in_one_line(source):
    with pytest.raises(TemplateError) as error:
        template(source).render(MESSAGES)
    assert HOSTILE[source] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_template_is_found_in_the_folder_of_its_tokenizer(tmp_path, tokenizer):
    assert load_template(tmp_path, tokenizer) is None
    config = {
        "chat_template": "config",
        "bos_token": {"content": "<b>", "lstrip": False},
        "model_max_length": 1000000000000000019884624838656,  # as save_pretrained writes it
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = load_template(tmp_path, tokenizer)
    assert (found.source, found.bos_token, found.eos_token) == ("config", "<b>", "<eos>")
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert load_template(tmp_path, tokenizer).source == "d"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert load_template(tmp_path, tokenizer).source == "file"


def test_links_are_followed_from_a_download_but_not_from_a_run(tmp_path, tokenizer):
    (tmp_path / "elsewhere").write_text("linked")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "chat_template.jinja").symlink_to(tmp_path / "elsewhere")
    assert load_template(tmp_path / "folder", tokenizer).source == "linked"
    (tmp_path / "folder" / "config.yaml").touch()
    with pytest.raises(DataError, match="regular file"):
        load_template(tmp_path / "folder", tokenizer)


def test_a_saved_template_is_read_back(tmp_path, tokenizer):
    template("{{ eos_token }}").save(tmp_path)
    restored = load_template(tmp_path, tokenizer)
    assert (restored.source, restored.bos_token, restored.eos_token) == (
        "{{ eos_token }}",
        "<s>",
        "</s>",
    )


@pytest.mark.parametrize(
    "config",
    [
        {"chat_template": 7},
        {"chat_template": [{"name": "tools", "template": "t"}]},
        {"bos_token": [1]},
    ],
)
def test_a_malformed_tokenizer_config_is_one_line(tmp_path, tokenizer, config):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        load_template(tmp_path, tokenizer)
