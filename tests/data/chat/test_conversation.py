"""Layouts of conversations: one type for all, and every key used or refused by name."""

import json
from datetime import date

import pytest

from mlxlab.data.chat.conversation import (
    contents,
    dump,
    find_answers,
    parse_conversation,
)

ASKED = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
LAYOUTS = {
    "messages": {"messages": ASKED, "id": 7},
    "messages as JSON": {"messages": json.dumps(ASKED)},
    "parts": {
        "messages": [ASKED[0], {"role": "assistant", "content": [{"type": "text", "text": "4"}]}]
    },
    "empty columns": {"messages": ASKED, "tools": None, "system": "", "weight": None, "text": None},
    "empty JSON": {"messages": ASKED, "tools": "[]"},
    "empty weights": {"messages": [{**turn, "weight": ""} for turn in ASKED]},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
    },
    "completion": {"prompt": "2 + 2?", "completion": "4"},
    "trl": {"prompt": ASKED[:1], "completion": ASKED[1:]},
    "alpaca": {"instruction": "2 + 2?", "input": "", "output": "4"},
}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
CALLS = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]


@pytest.mark.parametrize("record", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_conversation(record):
    assert parse_conversation(record) == {"messages": ASKED}


def test_alpaca_has_a_system_message_earlier_turns_and_an_input():
    record = {"system": "Count.", "instruction": "Add.", "input": "2 and 2", "output": "4"}
    turns = [["Add 1 1.", "2"]]
    for history in (turns, json.dumps(turns)):
        conversation = parse_conversation({**record, "history": history})
        contents = [message["content"] for message in conversation["messages"]]
        assert contents == ["Count.", "Add 1 1.", "2", "Add.\n\n2 and 2", "4"]
        assert find_answers(conversation) == [2, 4]


def test_tools_of_openai_and_of_sharegpt_are_the_same_conversation():
    openai = {
        "tools": TOOLS,
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "It is 2."},
        ],
    }
    sharegpt = {
        "tools": json.dumps(TOOLS),
        "system": "Be brief.",
        "conversations": [
            {"from": "human", "value": "1 + 1?"},
            {"from": "function_call", "value": json.dumps(CALLS[0]["function"])},
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "It is 2."},
        ],
    }
    conversation = parse_conversation(openai)
    assert conversation == parse_conversation(sharegpt)
    assert conversation["tools"] == TOOLS
    assert conversation["messages"][2]["tool_calls"] == CALLS
    assert contents(conversation).count("add") == 2


def test_answers_in_a_prompt_are_only_read():
    record = {"prompt": [*ASKED, ASKED[0]], "completion": ASKED[1:]}
    messages = parse_conversation(record)["messages"]
    assert [message.get("weight", 1) for message in messages[1::2]] == [0, 1]


TOOL = {"role": "tool", "content": "2", "name": "add", "tool_call_id": "call_1"}
REASONS = [
    [ASKED[0], {**ASKED[1], key: "two and two"}]
    for key in ("reasoning_content", "reasoning", "thinking")
]


@pytest.mark.parametrize("messages", [*REASONS, [*ASKED, TOOL, ASKED[1]]])
def test_reasoning_and_the_answers_of_tools_are_kept(messages):
    assert parse_conversation({"messages": messages}) == {"messages": messages}


def with_answer(**keys):
    return {"messages": [ASKED[0], {"role": "assistant", "content": "4", **keys}]}


def of_roles(*roles):
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (of_roles("user"), "without an answer"),
        (of_roles("user", "user", "assistant"), "message 2: user after user"),
        (of_roles("user", "assistant", "system"), "message 3: system after assistant"),
        (of_roles("user", "asistant"), 'message 2: role "asistant"'),
        (with_answer(content=" "), "message 2: content is empty"),
        (with_answer(content=[{"type": "image_url"}]), "expected parts of type text"),
        (with_answer(weight=0.5), "message 2: weight 0.5 of assistant"),
        (with_answer(value="5"), "content and value mean the same"),
        (with_answer(mood="good"), 'message 2: the key "mood"'),
        (with_answer(tool_calls=["add"]), "tool_calls: expected a list of objects"),
        (with_answer(name="Bob"), 'message 2: the key "name"'),
        ({"messages": [{**ASKED[0], "weight": 1}, ASKED[1]]}, "message 1: weight 1 of user"),
        ({"messages": "hello"}, "messages: expected JSON"),
        ({"prompt": "x", "completion": ""}, "message 2: content is empty"),
        ({"prompt": "a", "completion": "b", "label": False}, "'label'"),
        ({"prompt": "a", "completion": "b", "weight": 0}, '"weight"'),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, '"chosen"'),
        ({"instruction": "a", "output": "b", "tools": TOOLS}, '"tools"'),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, "pairs of texts"),
        ({"messages": ASKED, "tools": [{"day": date(2025, 1, 1)}]}, "expected JSON"),
        ({"text": "a", "images": ["x.png"]}, '"images"'),
        ({"messages": ASKED, "chat_template_kwargs": {"x": 1}}, '"chat_template_kwargs"'),
        ({"messages": ASKED, "text": "x"}, "several layouts.*data.layout.*messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}, ASKED[1]]}, "surrogates not allowed"),
        ({"mesages": ASKED}, "the keys .*mesages"),
        ({}, r"the keys \[\]"),
    ],
)
def test_what_is_not_used_is_refused_by_name(record, message):
    with pytest.raises(ValueError, match=message):
        dump(parse_conversation(record))


def test_a_named_layout_decides_a_record_of_several():
    record = {"instruction": "a", "input": "1", "output": "b", "text": "c"}
    assert parse_conversation(record, "text") == {"text": "c"}
    assert parse_conversation(record, "instruction")["messages"][0]["content"] == "a\n\n1"
