"""Conversations in the layouts that people have, and their normal form: messages with the usual roles, in order."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypedDict

from mlxlab.constraints import MaxLen, MinLen
from mlxlab.data.text.sources.records import abbreviate, column_text, json_object, unique_keys
from mlxlab.files.untrusted import parse_json
from mlxlab.wording import one_of

Layout = Literal["messages", "conversations", "prompt", "instruction", "text"]
REQUIRED: dict[
    str, tuple[str, ...]
] = {  # the keys by which a layout is recognised; further keys are ignored
    "messages": ("messages",),
    "conversations": ("conversations",),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "text": ("text",),
}
ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "developer": "system",
}
SHAREGPT_ROLES = ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
FOLLOWS = {  # role -> the roles that may come before it; "" is the start
    "system": ("",),
    "user": ("", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
UNSUPPORTED_KEYS = (
    "tool_calls",
    "function_call",
    "weight",
)  # ignoring them would change what is learned
MAX_MESSAGES = 1000


class Message(TypedDict):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


Conversation = list[Message] | str  # a text is a target as a whole
Stored = Annotated[list[Message], MinLen(1), MaxLen(MAX_MESSAGES)] | str


def parse_record(record: bytes, layout: Layout | None = None) -> Conversation | None:
    """The conversation in a line of JSON, None for a blank line.

    Args:
        layout: of the record; None recognises it by its keys.

    Raises:
        ValueError: the line is not JSON, of none or several layouts, or its messages are out of order, empty, or no
            text.
    """
    row = json_object(record, '{"messages": [...]}', unique_keys)
    if row is None:
        return None
    match layout or find_layout(row):
        case "text":
            return _content(row, "text")
        case "prompt":
            pairs = [("user", "prompt"), ("assistant", "completion")]
            return [_message(role, _content(row, key)) for role, key in pairs]
        case "instruction":
            return _instruction(row)
        case "conversations":
            return check_order(_messages(row, "conversations", "from", "value", SHAREGPT_ROLES))
        case _:
            return check_order(_messages(row, "messages", "role", "content", ROLES))


def find_layout(row: Mapping[str, object]) -> str:
    """The layout of a record; ValueError if it has the keys of none, or of several."""
    layouts = [name for name, keys in REQUIRED.items() if all(key in row for key in keys)]
    if len(layouts) == 1:
        return layouts[0]
    expected = " or ".join("/".join(keys) for keys in REQUIRED.values())
    if layouts:
        raise ValueError(
            f"a record of several layouts ({', '.join(layouts)}): choose one with data.layout={layouts[0]}"
        )
    raise ValueError(
        f"the keys {', '.join(map(abbreviate, list(row)[:8])) or 'none'}: expected {expected}"
    )


def check_order(messages: list[Message]) -> list[Message]:
    """`messages`, or a ValueError if their roles are out of order or there is no answer."""
    before = ""
    for number, message in enumerate(messages, 1):
        if before not in FOLLOWS[message["role"]]:
            place = f"after {before}" if before else "first"
            allowed = " or ".join(role or "the start" for role in FOLLOWS[message["role"]])
            raise ValueError(
                f"message {number}: {message['role']} {place}, expected it after {allowed}"
            )
        before = message["role"]
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("a conversation without an answer (a message of the assistant)")
    return messages


def dump(conversation: Conversation) -> str:
    """The normal form as JSON, in one spelling: equal conversations give equal text, whatever their layout."""
    return json.dumps(conversation, ensure_ascii=False, separators=(",", ":"))


def load(text: str) -> Conversation:
    """What `dump` wrote; DataError for anything else."""
    conversation: Conversation = parse_json(text, Stored, "conversation")  # type: ignore[arg-type]
    return conversation


def contents(conversation: Conversation) -> str:
    """All its text, to train a tokenizer on."""
    return (
        conversation
        if isinstance(conversation, str)
        else "\n".join(each["content"] for each in conversation)
    )


def _instruction(row: Mapping[str, object]) -> list[Message]:
    """Alpaca's instruction, with its optional input in a second paragraph, and output."""
    question = _content(row, "instruction")
    if "input" in row and row["input"] not in ("", None):
        question += "\n\n" + _content(row, "input")
    return [_message("user", question), _message("assistant", _content(row, "output"))]


def _messages(
    row: Mapping[str, object], key: str, role_key: str, content_key: str, roles: Mapping[str, str]
) -> list[Message]:
    items = row.get(key)
    if not isinstance(items, list):
        raise ValueError(f"{key}: expected a list of messages, got {abbreviate(items)}")
    if not 1 <= len(items) <= MAX_MESSAGES:
        raise ValueError(f"{key}: expected 1 to {MAX_MESSAGES} messages, got {len(items)}")
    messages = []
    for number, item in enumerate(items, 1):
        try:
            messages.append(_from_item(item, role_key, content_key, roles))
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from None
    return messages


def _from_item(item: object, role_key: str, content_key: str, roles: Mapping[str, str]) -> Message:
    if not isinstance(item, dict):
        raise ValueError(
            f'expected {{"{role_key}": ..., "{content_key}": ...}}, got {abbreviate(item)}'
        )
    if unsupported := [key for key in UNSUPPORTED_KEYS if item.get(key)]:
        raise ValueError(f"{unsupported[0]} is not supported")
    role = item.get(role_key)
    if not isinstance(role, str) or role not in roles:
        raise ValueError(f"{role_key} {abbreviate(role)}, expected {one_of(roles)}")
    return _message(roles[role], _content(item, content_key))


def _message(role: str, content: str) -> Message:
    return Message(role=role, content=content)  # type: ignore[typeddict-item]


def _content(row: Mapping[str, object], key: str) -> str:
    text = column_text(row, key)
    if not text or text.isspace():
        raise ValueError(f"{key} is empty")
    return text


def last_answer(messages: Sequence[Message]) -> int:
    """The index of the last message of the assistant."""
    return max(index for index, message in enumerate(messages) if message["role"] == "assistant")
