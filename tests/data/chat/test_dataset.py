"""Packed conversations: isolated from each other, exactly resumable, with the loss on answers only."""

import json
import random
import time

import pandas as pd
import pyarrow
import pytest
from benchmarks.config import read_config
from benchmarks.data.stream import override

from mlxlab.config.instantiate import instantiate
from mlxlab.data.chat.chat_template import ChatTokenizer
from mlxlab.data.chat.conversation import parse_conversation
from mlxlab.data.chat.dataset import open_conversations
from mlxlab.data.chat.masks import ConversationEncoder
from mlxlab.data.sources.block import ErrorBudget
from mlxlab.data.sources.open import Reading
from mlxlab.data.text.packing import EPOCH_START, TokenStream
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.errors import DataError, UserError
from mlxlab.evaluation.parts.data import check_data_module
from support.fault_injection.mutations import replace_value
from support.rows import MUTATIONS, mutate
from support.streams import as_lists, take

TOKENIZER = BPETokenizerTrainer(300, 512, 512, 1, 1000, None)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("conversations") / "a.jsonl"
    records = []
    for n in range(60):
        content = {role: f"{n} {role} " + "ab" * (n * 7 % 13) for role in ("user", "assistant")}
        messages = [{"role": role, "content": text} for role, text in content.items()]
        records.append({"messages": messages * (1 + n % 3)})
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.fixture
def new_data(file, tmp_path):
    def make(**changes):
        node = read_config("data/instruct") | {"source": str(file), "valid_fraction": 0.1}
        node |= {"seq_len": 128, "batch_size": 3, "eval_batch_size": 4, "prefetch": 0}
        node = override(node, {"shuffle.window": 9, **changes})
        runtime = {"seed": 1, "cache": tmp_path / "cache", "masked": False, "parameters": 1000}
        return instantiate(node, tokenizer=TOKENIZER, width=8, **runtime)

    return make


def decode(data, tokens):
    return data.tokenizer.inner.decode(list(tokens), skip_special_tokens=False)


def conversations_of(data, batches):
    """The text of every conversation, by its segment, and that of its targets."""
    texts = []
    for batch in batches:
        for tokens, segments, targets, weights in zip(*batch[:4], strict=True):
            for segment in range(1, segments.max() + 1):
                inside = segments == segment
                is_last = segment == segments.max()  # of which the last token is only a target
                end = targets[inside][-1:] if is_last else []
                text = decode(data, [*tokens[inside], *end])
                texts.append((text, decode(data, targets[inside & (weights > 0)])))
    return texts


def test_every_conversation_is_whole_in_its_segment_and_only_answers_are_targets(new_data, file):
    data = new_data(valid_source=str(file))
    texts = conversations_of(data, data.train)
    assert len(texts) == 60
    for text, answers in texts:
        number = text.removeprefix("<bos>user\n").split()[0]
        turns = [turn for turn in text.split("<bos>") if turn.startswith("assistant\n")]
        joined = "".join(turn.removeprefix("assistant\n") for turn in turns)
        assert answers == joined[: len(answers)]
        assert answers.count(f"{number} assistant") == len(turns) == 1 + int(number) % 3
        assert answers.rstrip("\n").endswith("<eos>")
        assert "user" not in answers
    valid = conversations_of(data, data.valid)
    assert sorted(text for text, _ in texts) == sorted(text for text, _ in valid)


@pytest.mark.parametrize("row_buffer", [0, 5])
def test_any_position_is_reached_exactly(new_data, row_buffer):
    plain, prefetched = (
        new_data(**{"shuffle.row_buffer": row_buffer, "prefetch": depth}).train for depth in (0, 2)
    )
    expected, states = [], {}
    while len(expected) < 40:
        expected += take(plain, 1)
        states[len(expected)] = json.dumps(plain.state_dict())
    assert expected[:8] != expected[8:16]
    for count in range(1, 36, 3):
        prefetched.load_state_dict(json.loads(states[count]))
        assert take(prefetched, 4) == expected[count : count + 4], count


def test_validation_shares_no_conversation_with_training(new_data):
    data = check_data_module(new_data())
    train, valid = (conversations_of(data, batches) for batches in (data.train, data.valid))
    assert valid
    assert not set(train) & set(valid)
    assert len(train) + len(valid) == 60
    assert [as_lists(batch) for batch in data.valid] == [as_lists(batch) for batch in data.valid]


def test_long_conversations_are_counted(new_data):
    lengths = new_data(seq_len=40).row_lengths
    assert lengths.share > 0.05
    assert "are longer than data.seq_len=40 tokens and are dropped" in lengths.describe()
    left = new_data(seq_len=40, truncation="left").row_lengths
    assert "truncated to their end" in left.describe()
    assert left.needed == lengths.needed > 40
    assert new_data(seq_len=lengths.needed).row_lengths.share <= 0.05
    with pytest.raises(DataError, match=r"expected an answer within data\.seq_len=8"):
        new_data(seq_len=8)


def test_what_changes_a_batch_changes_the_fingerprint(new_data):
    changes = ({}, {"loss_on": "completion"}, {"truncation": "left"}, {"seq_len": 120}, {"seed": 2})
    assert len({new_data(**change).fingerprint for change in changes}) == len(changes)


def test_a_template_of_the_user_is_used_and_its_faults_name_the_record(new_data, tmp_path):
    mine = tmp_path / "mine.jinja"
    mine.write_text("{% for m in messages %}{{ m.content }}|{% endfor %}")
    data = new_data(chat_template=str(mine))
    assert conversations_of(data, data.train)[0][0].endswith("|")
    data.save(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == mine.read_text()
    fails = "{% if messages|length > 5 %}{{ raise_exception('too many') }}{% endif %}{{ messages }}"
    for source, message in {
        "no message": "expected an answer within",
        "{% for m in messages %}\n{% endif %}": r"a\.jsonl:\d+: \S*mine\.jinja:2: .*endif",
        fails: r"a\.jsonl:\d+: .*mine\.jinja: the template failed: too many",
    }.items():
        mine.write_text(source)
        with pytest.raises(DataError, match=message):
            new_data(chat_template=str(mine), loss_on="all" if source == fails else "assistant")


def records_of_every_layout():
    messages = [
        {"role": role, "content": f'{role} "\u00fc"\n'} for role in ("system", "user", "assistant")
    ]
    turns = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]
    rows = [
        {"messages": messages, "id": 7},
        {"conversations": turns},
        {"prompt": "Say \u4e8c.", "completion": "\U0001f600"},
        {"instruction": "Add.", "input": "1, 1", "output": "2"},
        {"text": "All of it."},
    ]
    return [json.dumps(row, ensure_ascii=False).encode() for row in rows * 3]


def mutate_records(seed, data, canary):
    """Damaged bytes of a file, or another value somewhere in a record; and how many records surely precede it."""
    if seed % 2:
        return replace_value(random.Random(seed), data, canary), 0
    return mutate(seed // 2, data, "jsonl")


@pytest.mark.parametrize(
    "count", [len(MUTATIONS) * 2, pytest.param(1000, marks=pytest.mark.fault_injection)]
)
def test_a_mutated_file_gives_examples_or_one_line(new_data, tmp_path, count):
    data = new_data()
    chat = ChatTokenizer(data.template, data.tokenizer)
    records, path = records_of_every_layout(), tmp_path / "mutated.jsonl"
    for seed in range(count):
        mutated, intact = mutate_records(seed, b"\n".join(records) + b"\n", tmp_path / "canary")
        path.write_bytes(mutated)
        start, message, texts = time.perf_counter(), "", {}
        try:
            opened = open_conversations(str(path), Reading(), None, ErrorBudget(), 50)
            encoder = ConversationEncoder(chat, "assistant", 128, "drop", opened.skip)
            stream = TokenStream(opened, encoder, 0)
            documents = [each for window in stream.windows(0, EPOCH_START) for _, each in window]
            encoder(documents)
            texts = {document.id: document.text for document in documents}
        except UserError as error:
            message = str(error)
        assert message or texts, seed
        assert len(message.splitlines()) <= 1, seed
        assert len(message) < 500 + len(str(path)), seed
        if not message:
            conversations = [json.loads(texts[number]) for number in sorted(texts)]
            expected = [parse_conversation(json.loads(record)) for record in records[:intact]]
            assert conversations[:intact] == expected, seed
        assert time.perf_counter() - start < 10, seed


def records_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_chats(folder, name, records):
    """The same conversations in a format that the name says."""
    path = folder / name
    lines = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    frame = pd.DataFrame(records)
    match name.partition(".")[2]:
        case "jsonl":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(pyarrow.compress(lines, "gzip", asbytes=True))
        case "json":
            path.write_text(json.dumps(records, indent=1))
        case "parquet":
            frame.to_parquet(path)
        case "csv":
            frame.assign(messages=frame.messages.map(json.dumps)).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "a.csv"])
def test_every_format_gives_the_same_conversations_and_resumes(new_data, file, tmp_path, name):
    records = records_of(file)
    for record in records[::3]:
        record["messages"][1]["weight"] = 0
        record["messages"] += [record["messages"][0], {"role": "assistant", "content": "c"}]
    expected = new_data(source=write_chats(tmp_path, "expected.jsonl", records))
    data = new_data(source=write_chats(tmp_path, name, records), seq_len=150)
    assert sorted(conversations_of(data, data.train)) == sorted(
        conversations_of(expected, expected.train)
    )
    for _ in range(3):
        next(iter(data.train))
    state = json.loads(json.dumps(data.train.state_dict()))
    following = take(data.train, 6)
    data.train.load_state_dict(state)
    assert take(data.train, 6) == following


@pytest.mark.parametrize(("name", "row"), [("a.jsonl", 7), ("a.csv", 8), ("a.parquet", "row 7")])
def test_a_malformed_row_is_named_or_skipped(new_data, file, tmp_path, name, row):
    records = records_of(file) * 6
    records[6] = {"messages": [{"role": "user", "content": "no answer"}]}
    source = write_chats(tmp_path, name, records)
    with pytest.raises(DataError, match=rf"{name}:{row}: a conversation without an answer"):
        new_data(source=source)
    data = new_data(source=source, on_error="skip")
    assert data.train.skipped_records == 1
    held = conversations_of(data, data.valid)
    assert len(conversations_of(data, data.train)) + len(held) == 359


def test_a_conversation_that_cannot_be_encoded_is_named_or_skipped(new_data, file, tmp_path):
    records = records_of(file) * 6
    content = {"role": "user", "content": "a<eos>"}
    records[6] = {"messages": [content, *records[0]["messages"][1:]]}
    source = write_chats(tmp_path, "a.jsonl", records)
    with pytest.raises(DataError, match=r"a\.jsonl:7: a message contains the special token <eos>"):
        new_data(source=source)
    data = new_data(source=source, on_error="skip")
    for _ in range(2):
        list(data.train)
    assert data.train.skipped_records == 1


def test_columns_that_are_not_read_are_named(new_data, file, tmp_path):
    records = [record | {"id": 1, "origin": "x"} for record in records_of(file)]
    data = new_data(source=write_chats(tmp_path, "a.jsonl", records))
    assert any("id, origin" in line for line in data.sources)
