"""Conversations in the layouts that people have, and their one normal form.

Every key of a message is used or refused by name. So is a key of a record that would change what is
learned; the others (`id`, `source`) are its metadata.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from mlxlab.data.sources.messages import shorten

Layout = Literal["messages", "conversations", "prompt", "instruction", "text"]
Record = Mapping[str, object]
# A message as OpenAI writes it, which templates expect. `weight` is 0 where an answer is only read.
Message = dict[str, Any]
# `messages` and perhaps `tools`; or a `text`, which is a target as a whole.
Conversation = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
# What each role may follow.
FOLLOWS = {
    "system": ("the start",),
    "user": ("the start", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
# The keys by which a layout is recognised.
REQUIRED: dict[Layout, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "text": ("text",),
}
OPTIONAL: dict[Layout, tuple[str, ...]] = {
    "messages": ("system", "tools"),
    "conversations": ("system", "tools"),
    "prompt": ("system", "tools"),
    "instruction": ("system", "input", "history"),
    "text": (),
}
# Keys of a record that would change what is learned, beside those of `OPTIONAL`.
REFUSED = (
    "functions",
    "function_call",
    "tool_calls",
    "weight",
    "weights",
    "loss_weight",
    "loss_mask",
    "train",
    "reasoning",
    "reasoning_content",
    "thinking",
    "chosen",
    "rejected",
    "kto_tag",
    "images",
    "image",
    "videos",
    "video",
    "audios",
    "audio",
    "documents",
    "chat_template_kwargs",
)
# The keys of a message that only one role has.
KEYS_OF = {
    "assistant": ("tool_calls", "reasoning_content", "reasoning", "thinking"),
    "tool": ("name", "tool_call_id"),
}


def parse_conversation(record: Record, layout: Layout | None = None) -> Conversation:
    """The conversation of a record.

    Args:
        layout: of the record, which decides where there are keys of several; None recognises it.

    Raises:
        ValueError: a key is missing or not supported, or a message is malformed or out of order.
    """
    refused = {*REFUSED}
    if layout is None:
        refused.update(*OPTIONAL.values())
    layout = _find_layout(record, layout)
    _refuse(record, refused.difference(OPTIONAL[layout]))
    if layout == "text":
        return {"text": _text(record.get("text"), "text")}
    messages = _parse_messages(_list_messages(record, layout))
    tools = _list(record.get("tools"), "tools")
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


def unread_keys(keys: Iterable[str]) -> list[str]:
    """The columns of a table that are metadata."""
    read = {*REFUSED}.union(*REQUIRED.values(), *OPTIONAL.values())
    return [key for key in keys if key not in read]


def find_answers(conversation: Conversation) -> list[int]:
    """The indices of the messages of the assistant."""
    messages = enumerate(conversation["messages"])
    return [index for index, message in messages if message["role"] == "assistant"]


def contents(conversation: Conversation) -> str:
    """All that a template may write of it, to train a tokenizer on."""
    if "text" in conversation:
        return conversation["text"]
    values = [conversation["tools"]] if "tools" in conversation else []
    for message in conversation["messages"]:
        values += [message[key] for key in sorted(message.keys() - {"role", "weight"})]
    return "\n".join(value if isinstance(value, str) else dump(value) for value in values)


def dump(value: object) -> str:
    """JSON in one spelling; ValueError for what has none, such as a date of a Parquet file."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"expected JSON, got {error}") from None
    return text


def _find_layout(record: Record, named: Layout | None) -> Layout:
    keys = {key for key, value in record.items() if value is not None}
    layouts = [layout for layout, required in REQUIRED.items() if keys.issuperset(required)]
    if named is not None:
        layouts = [named] if named in layouts else []
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        raise ValueError(f"several layouts, expected data.layout, one of {', '.join(layouts)}")
    _refuse(record, REFUSED)
    expected = " or ".join(map("/".join, REQUIRED.values()))
    raise ValueError(f"the keys {shorten(list(record))}: expected {expected}")


def _list_messages(record: Record, layout: Layout) -> list[Message]:
    """The messages of a record in any layout, not yet parsed."""
    messages = []
    if _holds(record, "system"):
        messages.append({"role": "system", "content": record["system"]})
    if layout == "instruction":
        return [*messages, *_alpaca_messages(record)]
    if layout != "prompt":
        return messages + _list(record.get(layout), layout)
    if record.get("label") in (True, False):
        raise ValueError("the key 'label' (KTO) is not supported: it may change what is learned")
    prompt = [{**message, "weight": 0} for message in _turns("user", record, "prompt")]
    return [*messages, *prompt, *_turns("assistant", record, "completion")]


def _alpaca_messages(record: Record) -> Iterator[Message]:
    """Earlier turns, then the instruction with an optional input in a second paragraph."""
    history: Any = _parse(record.get("history"), "history") or []
    try:
        pairs = [(question, answer) for question, answer in history]
    except (TypeError, ValueError):
        raise ValueError(f"history: expected pairs of texts, got {shorten(history)}") from None
    for question, answer in pairs:
        yield {"role": "user", "content": question}
        yield {"role": "assistant", "content": answer}
    question = _text(record.get("instruction"), "instruction")
    if _holds(record, "input"):
        question = f"{question}\n\n{_text(record['input'], 'input')}"
    yield {"role": "user", "content": question}
    yield {"role": "assistant", "content": record.get("output")}


def _turns(role: str, record: Record, key: str) -> list[Message]:
    """A text as a message, or the messages that TRL has in its place."""
    value = record[key]
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return _list(value, key)


def _parse_messages(items: list[Message]) -> list[Message]:
    """The messages in their normal form; raises ValueError if their roles are out of order."""
    messages = []
    before = "the start"
    for number, item in enumerate(items, 1):
        try:
            message = _parse_message(item)
            role = message["role"]
            if before not in FOLLOWS[role]:
                expected = " or ".join(FOLLOWS[role])
                raise ValueError(f"{role} after {before}, expected after {expected}")
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from None
        messages.append(message)
        before = role
    if not find_answers({"messages": messages}):
        raise ValueError("a conversation without an answer (a message of the assistant)")
    return messages


def _parse_message(item: Message) -> Message:
    """A message with the keys of OpenAI or of ShareGPT."""
    name = _either(item, "role", "from")
    role = ROLES.get(str(name))
    if role is None:
        raise ValueError(f"role {shorten(name)}, expected one of {', '.join(ROLES)}")
    keys = KEYS_OF.get(role, ())
    _refuse(item, item.keys() - {"role", "from", "content", "value", "weight", *keys})
    message: Message = {"role": role, "content": ""}
    content = _either(item, "content", "value") or ""
    if name == "function_call":
        call = _parse(content, "function_call")
        message["tool_calls"] = [{"type": "function", "function": call}]
    elif content or not _holds(item, "tool_calls"):
        message["content"] = _text(content, "content")
    for key in keys:
        if _holds(item, key):
            read = _list if key == "tool_calls" else _text
            message[key] = read(item[key], key)
    weight = item["weight"] if _holds(item, "weight") else None
    if weight not in (None, 0, 1) or (weight and role != "assistant"):
        raise ValueError(f"weight {shorten(weight)} of {role}, expected 0, or 1 of an answer")
    if weight == 0 and role == "assistant":
        message["weight"] = 0
    return message


def _refuse(item: Record, keys: Iterable[str]) -> None:
    """Raises ValueError if one of these keys holds something."""
    for key in sorted(keys):
        if _holds(item, key):
            name = shorten(key)
            raise ValueError(f"the key {name} is not supported: it may change what is learned")


def _holds(item: Record, key: str) -> bool:
    return item.get(key) not in (None, "", [], {})


def _either(item: Record, key: str, other: str) -> object:
    if _holds(item, key) and _holds(item, other):
        raise ValueError(f"{key} and {other} mean the same, expected one of them")
    return item.get(key) or item.get(other)


def _text(value: object, key: str) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(value, list):
        value = "".join(map(_part, value))
    if not isinstance(value, str):
        raise ValueError(f"{key}: {shorten(value)}, expected text")
    if not value.strip():
        raise ValueError(f"{key} is empty")
    return value


def _part(part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise ValueError(f"{shorten(part)}, expected parts of type text")
    _refuse(part, part.keys() - {"type", "text"})
    return _text(part.get("text"), "text")


def _list(value: object, key: str) -> list[Any]:
    """A list of objects, empty for nothing."""
    items = _parse(value, key) or []
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise ValueError(f"{key}: expected a list of objects, got {shorten(items)}")
    return items


def _parse(value: object, key: str) -> object:
    """A value that CSV and Parquet often hold as JSON text."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{key}: expected JSON, got {shorten(value)}") from None
