"""Chat templates: Jinja programs that come with a tokenizer and make one text of the messages of a conversation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NotRequired, TypedDict

import jinja2

from mlxlab.data.instruct.conversations import Message
from mlxlab.data.instruct.sandbox import (
    ANSWER_END,
    ANSWER_START,
    MAX_OUTPUT,
    compile_template,
    run_limited,
)
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.files.untrusted import ShapeError, read_json, read_text, validate

FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
MAX_TEMPLATE = 2**18  # bytes
DEFAULT = """\
{% for message in messages %}
{{ bos_token }}{{ message['role'] }}
{{ message['content'] }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
{{ bos_token }}assistant
{% endif %}
"""  # ChatML (OpenAI 2023) with the start and end tokens of the tokenizer as <|im_start|> and <|im_end|>


class TemplateError(ValueError):
    """A template that cannot be compiled or fails on a conversation; the message names it."""


class NamedTemplate(TypedDict):
    """One of several templates in tokenizer_config.json."""

    name: str
    template: str


class TokenContent(TypedDict):
    """A special token in tokenizer_config.json."""

    content: str


class TokenizerConfig(TypedDict):
    """The keys of tokenizer_config.json that are read."""

    chat_template: NotRequired[str | list[NamedTemplate] | None]
    bos_token: NotRequired[str | TokenContent | None]
    eos_token: NotRequired[str | TokenContent | None]


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Args:
        source: the Jinja program.
        name: of its file, for messages.
        bos_token, eos_token: what the variables of these names hold.
    """

    source: str
    name: str
    bos_token: str
    eos_token: str

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The text of `messages`, with the header of an answer if `add_generation_prompt`; raises TemplateError."""
        text, _ = self.render_spans(messages, add_generation_prompt)
        return text

    def render_spans(
        self, messages: Sequence[Message], add_generation_prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and start and end of each `{% generation %}` block in it."""
        if any(
            mark in message["content"]
            for message in messages
            for mark in (ANSWER_START, ANSWER_END)
        ):
            raise TemplateError("a message contains a noncharacter (U+FDD0 or U+FDD1)")
        variables = {
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
        }
        tokens = {"bos_token": self.bos_token, "eos_token": self.eos_token}
        try:
            text = run_limited(lambda: self._compiled.render(variables | tokens))
        except MemoryError:
            raise TemplateError(f"{self.name}: the template ran out of memory") from None
        except Exception as error:  # a program of a stranger raises whatever it likes
            raise TemplateError(f"{self.name}: the template failed: {_one_line(error)}") from None
        if len(text) > MAX_OUTPUT:
            raise TemplateError(
                f"{self.name}: the template gave {len(text)} characters, expected <= {MAX_OUTPUT}"
            )
        return _split_marks(text)

    def check_syntax(self) -> None:
        """Compiles the template; raises DataError with file and line if it is no Jinja program."""
        try:
            _ = self._compiled
        except jinja2.TemplateSyntaxError as error:
            message = " ".join(str(error.message).split())[:200]
            raise DataError(
                f"{self.name}:{error.lineno}: the chat template cannot be compiled: {message}"
            ) from None

    @cached_property
    def marks_answers(self) -> bool:
        """Whether the template says by `{% generation %}` blocks what the assistant writes."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.source) is not None

    def save(self, folder: Path) -> None:
        """Writes chat_template.jinja and, as Hugging Face does, tokenizer_config.json."""
        write_atomic(folder / FILE, self.source)
        write_json(folder / CONFIG_FILE, {"bos_token": self.bos_token, "eos_token": self.eos_token})

    @cached_property
    def _compiled(self) -> jinja2.Template:
        if len(self.source.encode()) > MAX_TEMPLATE:
            raise ValueError(f"larger than {MAX_TEMPLATE} bytes")
        return compile_template(self.source)


def default_template(tokenizer: Tokenizer) -> ChatTemplate:
    """`DEFAULT` with the special tokens of a tokenizer; ConfigError if it has none to end an answer."""
    bos, eos = special_tokens(tokenizer)
    if not eos:
        raise ConfigError(
            "data.chat_template: the tokenizer has neither a chat template nor an end token"
        )
    return ChatTemplate(DEFAULT, "the default chat template", bos, eos)


def generate_options(run: Path) -> str:
    """What `generate` needs for the model of a run: ` chat=true` if it was trained on conversations, else ""."""
    return " chat=true" if (run / "inference" / FILE).is_file() else ""


def load_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template in a tokenizer's folder: chat_template.jinja or in tokenizer_config.json; None without one.

    Of several named templates in tokenizer_config.json `default` is taken. Raises DataError for malformed files.
    """
    bos, eos = special_tokens(tokenizer)
    config = _read_config(folder / CONFIG_FILE)
    bos, eos = _token(config.get("bos_token"), bos), _token(config.get("eos_token"), eos)
    try:
        path = _resolved(folder / FILE)
        return ChatTemplate(read_text(path, max_bytes=MAX_TEMPLATE), str(folder / FILE), bos, eos)
    except InputNotFoundError:
        pass
    source = config.get("chat_template")
    if isinstance(source, list):
        named = {each["name"]: each["template"] for each in source}
        if "default" not in named:
            names = ", ".join(named) or "none"
            raise DataError(
                f"{folder / CONFIG_FILE}: chat_template: expected one named default, got {names}"
            )
        source = named["default"]
    return None if source is None else ChatTemplate(source, str(folder / CONFIG_FILE), bos, eos)


def read_template(path: Path, tokenizer: Tokenizer) -> ChatTemplate:
    """The template in a file that the user names; raises InputNotFoundError or DataError."""
    return ChatTemplate(
        read_text(_resolved(path), max_bytes=MAX_TEMPLATE), str(path), *special_tokens(tokenizer)
    )


def special_tokens(tokenizer: Tokenizer) -> tuple[str, str]:
    """The start and the end token as text, "" for none."""
    ids = (tokenizer.bos_id, tokenizer.eos_id)
    bos, eos = ("" if token is None else tokenizer.inner.id_to_token(token) or "" for token in ids)
    return bos, eos


def _read_config(path: Path) -> TokenizerConfig:
    try:
        keys = TokenizerConfig.__annotations__
        known = read_json(_resolved(path), dict[str, object], keys=keys)
    except InputNotFoundError:
        return TokenizerConfig()
    for key in ("bos_token", "eos_token"):  # of an added token only the text counts
        if isinstance(token := known.get(key), dict):
            known[key] = {"content": token.get("content")}
    try:
        config: TokenizerConfig = validate(known, TokenizerConfig)
    except ShapeError as error:
        raise DataError(f"{path}: {error}") from None
    return config


def _resolved(path: Path) -> Path:
    """Follows links, as the files of a downloaded snapshot are, but not from the run folder of a stranger."""
    is_run = (path.parent / "config.yaml").exists()
    return path if is_run else path.resolve()


def _token(configured: str | TokenContent | None, default: str) -> str:
    if configured is None:
        return default
    return configured if isinstance(configured, str) else configured["content"]


def _split_marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without the marks around answers, and the spans between them."""
    spans, pieces, length = [], [], 0
    for number, piece in enumerate(re.split(f"[{ANSWER_START}{ANSWER_END}]", text)):
        if number % 2:
            spans.append((length, length + len(piece)))
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), spans


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    line = getattr(error, "lineno", None)  # of a syntax error
    return f"{text} (line {line})" if line else text
