"""Which tokens of a conversation are answers: the only targets of instruction tuning.

An answer begins where the text of the messages before it, with the header of an answer, ends; and it ends where the
text of the messages up to it ends. So the token that ends a turn is a target and headers are not. Every beginning is
rendered and tokenised, and must be the beginning of the whole: a mask is exact, or the conversation is refused. For
one answer this is the rule of mlx-lm's `--mask-prompt`.
"""

from typing import Literal

import numpy as np
import tokenizers

from mlxlab.data.instruct.chat_template import ChatTemplate
from mlxlab.data.instruct.conversations import Message, last_answer

LossOn = Literal["assistant", "completion", "all"]
Span = tuple[int, int]


def answer_spans(
    template: ChatTemplate, messages: list[Message], loss_on: LossOn
) -> tuple[str, list[Span]]:
    """The text of a conversation, and start and end of its targets in it, in characters.

    Args:
        loss_on: `assistant` for all answers, `completion` for the last one, `all` for the whole text.

    Raises:
        ValueError: the template fails, or gives earlier messages another text once more follow.
    """
    text, marked = template.render_spans(messages)
    if loss_on == "all":
        return text, [(0, len(text))]
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if template.marks_answers:
        if len(marked) != len(answers):
            raise ValueError(
                f"{template.name}: marks {len(marked)} answers of {len(answers)} by generation blocks"
            )
        return text, marked if loss_on == "assistant" else marked[-1:]
    if loss_on == "completion":
        answers = [last_answer(messages)]
    return text, [_rendered_span(template, messages, index, text) for index in answers]


def _rendered_span(template: ChatTemplate, messages: list[Message], index: int, text: str) -> Span:
    """Start and end of an answer, by rendering the messages before it and those up to it."""
    before = template.render(messages[:index], add_generation_prompt=True)
    after = template.render(messages[: index + 1])
    if not (text.startswith(after) and after.startswith(before)):
        raise ValueError(
            f"{template.name}: the text up to message {index + 1} is not a beginning of the whole conversation, so its"
            " answer cannot be located; data.loss_on=all needs no locations, nor does a template with generation blocks"
        )
    return len(before), len(after)


def token_mask(
    tokenizer: tokenizers.Tokenizer, text: str, spans: list[Span], special: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of `text` (T,) int32, and which of them are targets (T,) bool; never the first, which nothing predicts.

    Args:
        tokenizer: recognises special tokens in the text.
        spans: of the targets, in characters, ascending.
        special: add the tokens that the tokenizer puts around a text.

    Raises:
        ValueError: the tokens of a beginning of the text are not the beginning of its tokens.
    """
    ends = sorted({end for span in spans for end in span} - {0, len(text)})
    encodings = tokenizer.encode_batch_fast(
        [text, *(text[:end] for end in ends)], add_special_tokens=special
    )
    tokens = encodings[0].ids
    positions = {0: 0, len(text): len(tokens)}
    for end, encoding in zip(ends, encodings[1:], strict=True):
        positions[end] = _count_beginning(tokenizer, tokens, encoding.ids)
    is_target = np.zeros(len(tokens), bool)
    for start, end in spans:
        is_target[positions[start] : positions[end]] = True
    is_target[:1] = False
    return np.array(tokens, np.int32), is_target


def _count_beginning(
    tokenizer: tokenizers.Tokenizer, tokens: list[int], beginning: list[int]
) -> int:
    """How many of `tokens` cover the text of `beginning`.

    The last one may also cover some of what follows, as one token of two line breaks does.
    """
    count = len(beginning)
    if tokens[:count] == beginning:
        return count
    if tokens[: count - 1] == beginning[:-1] and count <= len(tokens):
        longer, shorter = (
            tokenizer.id_to_token(ids[count - 1]) or "" for ids in (tokens, beginning)
        )
        if longer.startswith(shorter):
            return count
    raise ValueError(
        "the tokens of an answer depend on those of the header before it, so it cannot be located"
    )
