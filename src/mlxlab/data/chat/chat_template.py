"""Chat templates: Jinja programs of a tokenizer that write a conversation as one text, and the tokens of that.

A program runs in a process of its own, see `sandbox`.
"""

import json
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import tokenizers

from mlxlab.data.chat import sandbox
from mlxlab.data.chat.conversation import Conversation, Message, contents
from mlxlab.data.chat.sandbox import ANSWER_END, ANSWER_START, Reply, Request
from mlxlab.data.sources.messages import shorten
from mlxlab.data.tokenizers.tokenizer import Tokenizer, follow_link
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.files.untrusted import read_json, read_text

FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"
MAX_SECONDS = 5.0  # processor time for a conversation
MAX_MESSAGE = 200  # characters of an error of the template
# ChatML (OpenAI 2023) with the tokenizer's start and end tokens as <|im_start|> and <|im_end|>.
DEFAULT = """\
{% for message in messages %}
{{ bos_token }}{{ message['role'] }}
{{ message['content'] }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
{{ bos_token }}assistant
{% endif %}
"""


class TemplateError(DataError):
    """A template that cannot be compiled, fails, or takes more time or memory than it may."""


@dataclass(eq=False)
class ChatTemplate:
    """A chat template; may be used by several threads.

    Args:
        source: the Jinja program.
        name: of its file, for messages.
        bos_token, eos_token: what the variables of these names hold.
    """

    source: str
    name: str
    bos_token: str
    eos_token: str
    _process: "subprocess.Popen[str] | None" = None  # started when it is first needed
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self, key: str) -> bool:
        """Whether the program names a variable or a key of a message."""
        return re.search(rf"(?<![</\w]){key}\b", self.source) is not None

    def render(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        """The text of messages, with the header of an answer if `add_generation_prompt`.

        Raises TemplateError if the template fails.
        """
        request = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        (reply,) = self.answer([request])
        if "error" in reply:
            raise TemplateError(reply["error"])
        return str(reply["text"])

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """The reply of the sandbox to each request; `error` in it where the template fails.

        Raises TemplateError.
        """
        with self._lock:
            replies = self._ask(requests)
        for reply in replies:
            if "error" in reply:
                where = f"{self.name}:{reply['line']}" if reply["line"] else self.name
                reply["error"] = f"{where}: the template failed: {_one_line(reply['error'])}"
        return replies

    def save(self, folder: Path) -> None:
        """Writes chat_template.jinja and, as Hugging Face does, tokenizer_config.json."""
        write_atomic(folder / FILE, self.source)
        write_json(folder / CONFIG_FILE, {"bos_token": self.bos_token, "eos_token": self.eos_token})

    def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        text = f"{json.dumps(requests)}\n"
        if self._process is None:
            self._process = self._start()
            tokens = {"bos_token": self.bos_token, "eos_token": self.eos_token}
            text = f"{json.dumps({'source': self.source, 'special_tokens': tokens})}\n{text}"
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # The end of the process is noticed on reading.
            process.stdin.write(text)
            process.stdin.flush()
        line = process.stdout.readline()
        if line.endswith("\n"):
            return json.loads(line)
        self._process = None
        if process.wait() == -signal.SIGPROF:
            raise TemplateError(f"{self.name}: the template took more than {MAX_SECONDS:g} s")
        raise TemplateError(f"{self.name}: the template crashed or ran out of memory")

    def _start(self) -> "subprocess.Popen[str]":
        """The sandbox with the modules of this process, and with no other environment."""
        process = subprocess.Popen(
            [sys.executable, "-S", "-P", sandbox.__file__, str(MAX_SECONDS)],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        weakref.finalize(self, _end, process)
        return process


def _end(process: "subprocess.Popen[str]") -> None:
    with suppress(BrokenPipeError), process:
        process.kill()


def _one_line(text: str) -> str:
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(printable.split())[:MAX_MESSAGE]


def default_template(tokenizer: Tokenizer) -> ChatTemplate:
    """`DEFAULT` with the tokens of a tokenizer; ConfigError if it has none to end an answer."""
    if tokenizer.eos_id is None:
        raise ConfigError("data.chat_template: expected a file, as the tokenizer has no end token")
    return _new_template(DEFAULT, "the default chat template", {}, tokenizer)


Token = str | dict[str, Any] | None  # a text, or an object with `content`


class _Config(TypedDict, total=False):
    """What is read of tokenizer_config.json."""

    chat_template: object
    bos_token: Token
    eos_token: Token


def load_template(folder: Path | None, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template in a tokenizer's folder: chat_template.jinja or in tokenizer_config.json.

    Of several named templates in tokenizer_config.json `default` is taken.
    Returns None for a folder without one, or no folder; raises DataError for malformed files.
    """
    if folder is None:
        return None
    path = folder / CONFIG_FILE
    config: _Config = {}
    with suppress(InputNotFoundError):
        config = read_json(follow_link(path), _Config, keys=_Config.__annotations__)
    source = config.get("chat_template")
    if isinstance(source, list):
        named = {
            each.get("name"): each.get("template") for each in source if isinstance(each, dict)
        }
        source = named.get("default", source)
    with suppress(InputNotFoundError):
        source = read_text(follow_link(folder / FILE))
        path = folder / FILE
    if source is None:
        return None
    if not isinstance(source, str):
        raise DataError(f"{path}: chat_template: expected a text, got {shorten(source)}")
    return _new_template(source, str(path), config, tokenizer)


def choose_template(
    restored: Path | None, file: str | None, folder: Path | None, tokenizer: Tokenizer
) -> ChatTemplate:
    """The template of a restored run, a file of the user, the tokenizer's, or the default one.

    Raises as `load_template` and `default_template`; InputNotFoundError for a file of the user.
    """
    template = load_template(restored, tokenizer)
    if template is None and file is not None:
        path = Path(file).expanduser()
        template = _new_template(read_text(follow_link(path)), str(path), {}, tokenizer)
    return template or load_template(folder, tokenizer) or default_template(tokenizer)


def _new_template(source: str, name: str, config: _Config, tokenizer: Tokenizer) -> ChatTemplate:
    """A template with the special tokens of a config, or else of a tokenizer; "" for none."""
    bos_token = _special_token(config.get("bos_token"), tokenizer, tokenizer.bos_id)
    eos_token = _special_token(config.get("eos_token"), tokenizer, tokenizer.eos_id)
    return ChatTemplate(source, name, bos_token, eos_token)


def _special_token(token: Token, tokenizer: Tokenizer, number: int | None) -> str:
    if isinstance(token, dict):
        token = token.get("content")
    if token is None and number is not None:
        token = tokenizer.inner.id_to_token(number)
    return str(token or "")


# A template that does not name one of these keys would leave it out.
RENDERED = ("tools", "tool_calls", "reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class ChatTokenizer:
    """Recognises special tokens in what the template renders."""

    template: ChatTemplate
    tokenizer: Tokenizer

    @cached_property
    def inner(self) -> tokenizers.Tokenizer:
        """A copy, since `Tokenizer` takes special tokens in a text for text.

        It has no post-processor, which could cut spaces out of the offsets of tokens.
        """
        inner = tokenizers.Tokenizer.from_str(self.tokenizer.inner.to_str())
        inner.post_processor = None
        return inner

    @cached_property
    def special(self) -> dict[str, int]:
        """The special tokens by their text."""
        added = self.tokenizer.inner.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def check(self, conversation: Conversation) -> None:
        """Raises ValueError for a message that could end its turn, and for a key that the template
        would leave out.
        """
        self.check_text(contents(conversation))
        keys = conversation.keys() | set[str]().union(*conversation["messages"])
        for key in RENDERED:
            if key in keys and not self.template.names(key):
                raise ValueError(f"{self.template.name}: the template does not render {key}")

    def check_text(self, text: str) -> None:
        """Raises ValueError for a text that could end its turn and begin another."""
        held = [piece for piece in self.special if piece in text]
        if held:
            first = min(held, key=text.index)
            raise ValueError(f"a message contains the special token {first}")
        if ANSWER_START in text or ANSWER_END in text:
            raise ValueError("a message contains a noncharacter (U+FDD0 or U+FDD1)")

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the end token, and the first special one after it."""
        answer = "answer"
        messages = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": answer},
        ]
        after = self.template.render(messages).rpartition(answer)[2]
        special = set(self.special.values())
        following = [token for token in self.encode(after) if token in special]
        ends = {*following[:1], self.tokenizer.eos_id}
        return frozenset(token for token in ends if token is not None)
