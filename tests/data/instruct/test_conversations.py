"""Layouts of conversations: each to the same normal form, and every fault in one line with file and line."""

import gzip
import json

import pyarrow
import pytest

from mlxlab.data.instruct.conversations import dump, load, parse_record
from mlxlab.data.instruct.sources import ConversationParser, open_conversations
from mlxlab.errors import DataError, InputNotFoundError

ASKED = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
LAYOUTS = {
    "messages": {"messages": ASKED, "id": 7},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
    },
    "completion": {"prompt": "2 + 2?", "completion": "4"},
    "alpaca": {"instruction": "2 + 2?", "input": "", "output": "4"},
}


def parse(row, layout=None):
    return parse_record(json.dumps(row).encode(), layout)


@pytest.mark.parametrize("row", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_has_the_same_normal_form(row):
    assert parse(row) == ASKED
    assert load(dump(parse(row))) == ASKED


def test_an_input_follows_the_instruction_and_a_text_stays_a_text():
    row = {"instruction": "Add.", "input": "2 and 2", "output": "4"}
    assert parse(row)[0] == {"role": "user", "content": "Add.\n\n2 and 2"}
    assert parse({"text": "all of it"}) == "all of it"
    assert load(dump("all of it")) == "all of it"
    assert parse_record(b" \n") is None


def test_turns_of_tools_and_a_system_message_are_in_order():
    messages = [
        {"role": role, "content": role}
        for role in ("system", "user", "assistant", "tool", "assistant")
    ]
    assert parse({"messages": messages}) == messages
    developer = [{"role": "developer", "content": "Be brief."}, *ASKED]
    assert parse({"messages": developer})[0]["role"] == "system"


def of_roles(*roles):
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (of_roles("user"), "without an answer"),
        (of_roles("user", "user", "assistant"), "message 2: user after user"),
        (
            of_roles("assistant", "user"),
            "message 1: assistant first, expected it after user or tool",
        ),
        (of_roles("user", "assistant", "system"), "message 3: system after assistant"),
        (of_roles("user", "asistant"), 'message 2: role "asistant"'),
        (
            {"messages": [ASKED[0], {"role": "assistant", "content": " "}]},
            "message 2: content is empty",
        ),
        (
            {"messages": [ASKED[0], {"role": "assistant", "content": None}]},
            "message 2: .*null, expected text",
        ),
        ({"messages": [ASKED[0], {"role": "assistant"}]}, "message 2: no column 'content'"),
        (
            {"messages": [ASKED[0], {"role": "assistant", "content": "4", "weight": 1}]},
            "weight is not supported",
        ),
        ({"messages": []}, "expected 1 to 1000 messages, got 0"),
        ({"messages": "hello"}, "expected a list of messages"),
        ({"messages": ["hello"]}, "message 1: expected"),
        ({"prompt": "x", "completion": ""}, "completion is empty"),
        ({"prompt": ["x"], "completion": "y"}, "expected text"),
        ({"messages": ASKED, "text": "x"}, "several layouts.*data.layout=messages"),
        ({"mesages": ASKED}, 'the keys "mesages"'),
        ({}, "the keys none"),
        ([1], "is not an object"),
    ],
)
def test_a_fault_says_what_was_expected(row, message):
    with pytest.raises(ValueError, match=message):
        parse(row)


def test_a_named_layout_decides_a_record_of_several():
    row = {"instruction": "a", "input": "", "output": "b", "text": "c"}
    assert parse(row, "text") == "c"
    assert parse(row, "instruction")[1]["content"] == "b"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_fault_has_its_file_and_line_and_may_be_skipped(tmp_path, name):
    lines = [json.dumps({"prompt": f"{n}?", "completion": f"{n}"}) for n in range(300)]
    lines[6] = json.dumps(of_roles("user"))
    data = "\n".join(lines).encode()
    pack = {"gz": gzip.compress, "zst": lambda text: pyarrow.compress(text, "zstd", asbytes=True)}
    (tmp_path / name).write_bytes(pack.get(name.rpartition(".")[2], bytes)(data))
    with pytest.raises(DataError, match=r"a\.jsonl[.gzst]*:7: a conversation without an answer"):
        list(
            open_conversations(str(tmp_path), ConversationParser(None), "strict", 50).windows(0, 0)
        )
    source = open_conversations(str(tmp_path), ConversationParser(None), "skip", 50)
    assert sum(len(documents) for _, documents in source.windows(0, 0)) == 299
    assert source.error_budgets[0].skipped_records == 1


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\n")
    with pytest.raises(DataError, match=r"expected conversations in a file that ends in \.jsonl"):
        open_conversations(str(tmp_path / "a.csv"), ConversationParser(None), "strict", 50)
    with pytest.raises(InputNotFoundError, match="no such file"):
        open_conversations(str(tmp_path / "b.jsonl"), ConversationParser(None), "strict", 50)
