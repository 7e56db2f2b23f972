"""Chat templates: Jinja programs of a tokenizer that write a conversation as one text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlxlab.data.chat.conversation import Message
from mlxlab.data.chat.template_process import MAX_TEMPLATE, TemplateError, TemplateProcess
from mlxlab.data.sources.messages import shorten
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.files.untrusted import read_json, read_text

FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"
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

    @cached_property
    def process(self) -> TemplateProcess:
        tokens = {"bos_token": self.bos_token, "eos_token": self.eos_token}
        return TemplateProcess(self.source, self.name, tokens)

    def names(self, key: str) -> bool:
        """Whether the program names a variable or a key of a message."""
        return re.search(rf"(?<![</\w]){key}\b", self.source) is not None

    def render(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        """The text of messages, with the header of an answer if `add_generation_prompt`.

        Raises TemplateError if the template fails.
        """
        request = {
            "messages": messages,
            "tools": None,
            "answers": [],
            "add_generation_prompt": add_generation_prompt,
        }
        (reply,) = self.process.render([request])
        if "error" in reply:
            raise TemplateError(reply["error"])
        text: str = reply["text"]
        return text

    def save(self, folder: Path) -> None:
        """Writes chat_template.jinja and, as Hugging Face does, tokenizer_config.json."""
        write_atomic(folder / FILE, self.source)
        write_json(folder / CONFIG_FILE, {"bos_token": self.bos_token, "eos_token": self.eos_token})


def default_template(tokenizer: Tokenizer) -> ChatTemplate:
    """`DEFAULT` with the tokens of a tokenizer; ConfigError if it has none to end an answer."""
    if tokenizer.eos_id is None:
        raise ConfigError(
            "data.chat_template: the tokenizer has neither a chat template nor an end token"
        )
    return _new_template(DEFAULT, "the default chat template", {}, tokenizer)


def generate_options(run: Path) -> str:
    """` chat=true` for `generate` if a run was trained on conversations, else nothing."""
    return " chat=true" if (run / "inference" / FILE).is_file() else ""


def load_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template in a tokenizer's folder: chat_template.jinja or in tokenizer_config.json.

    Of several named templates in tokenizer_config.json `default` is taken. Returns None for a
    folder without one; raises DataError for malformed files.
    """
    path = folder / FILE
    config = _read_config(folder / CONFIG_FILE)
    source = config.get("chat_template")
    try:
        source = read_text(_resolved(path), max_bytes=MAX_TEMPLATE)
    except InputNotFoundError:
        path = folder / CONFIG_FILE
    if isinstance(source, list):
        named = [
            each for each in source if isinstance(each, dict) and each.get("name") == "default"
        ]
        source = named[0].get("template") if named else source
    if source is None:
        return None
    if not isinstance(source, str):
        raise DataError(
            f"{path}: chat_template: a text or one named default, got {shorten(source)}"
        )
    return _new_template(source, str(path), config, tokenizer)


def choose_template(
    restored: Path | None, named: str | None, folder: Path | None, tokenizer: Tokenizer
) -> ChatTemplate:
    """The template of a restored run, a file of the user, the tokenizer's, or the default one.

    Raises as `load_template` and `default_template`; InputNotFoundError for a file of the user.
    """
    template = None
    if restored is not None:
        template = load_template(restored, tokenizer)
    if template is None and named is not None:
        path = Path(named).expanduser()
        source = read_text(_resolved(path), max_bytes=MAX_TEMPLATE)
        template = _new_template(source, str(path), {}, tokenizer)
    if template is None and folder is not None:
        template = load_template(folder, tokenizer)
    return template or default_template(tokenizer)


def _new_template(
    source: str, name: str, config: Mapping[str, object], tokenizer: Tokenizer
) -> ChatTemplate:
    """A template with the special tokens of a config, or else of a tokenizer; "" for none."""
    tokens: list[str] = []
    for key, number in (("bos_token", tokenizer.bos_id), ("eos_token", tokenizer.eos_id)):
        token = config.get(key)
        if isinstance(token, dict):
            token = token.get("content")
        if token is None:
            token = "" if number is None else tokenizer.inner.id_to_token(number) or ""
        if not isinstance(token, str):
            raise DataError(f"{name}: {key}: expected a text, got {shorten(token)}")
        tokens.append(token)
    return ChatTemplate(source, name, *tokens)


def _read_config(path: Path) -> dict[str, object]:
    """The keys that are read; others may hold anything."""
    try:
        keys = ("chat_template", "bos_token", "eos_token")
        return read_json(_resolved(path), dict[str, object], keys=keys)
    except InputNotFoundError:
        return {}


def _resolved(path: Path) -> Path:
    """Follows links, as the files of a downloaded snapshot are, but not from a stranger's run."""
    is_run = (path.parent / "config.yaml").exists()
    return path if is_run else path.resolve()
