"""Text that a language model generates at the end of a run: a new document, and validation text."""

import time
from collections.abc import Sequence

import numpy as np

from mlxlab.data.dataset import DataModule
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.inference.generate import GenerationConfig, generate
from mlxlab.models.model import Model
from mlxlab.record.run_record import Sample

PROMPT = 24  # tokens of validation text
MAX_PROMPT = 256  # tokens before an answer
# Texts end after both of these, for each text on average, or after `MAX_SECONDS`.
SECONDS = 0.5
MIN_TOKENS = 20
MAX_SECONDS = 5.0


def sample_prompts(data: DataModule, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Token ids: the end of a document, after which another one begins, then beginnings of validation rows.

    A row that begins with tokens that are no targets, such as a question, is continued behind all of those; where rows
    do, no document is begun without a prompt.
    """
    batch = next(iter(data.valid), None)
    if batch is None:
        return []
    has_questions = False
    prompts: list[list[int]] = []
    for tokens, segments, weights in zip(
        batch.tokens, batch.segment_ids, batch.loss_weights, strict=True
    ):
        skipped = int(np.argmax(np.asarray(weights) > 0))  # weights are those of the next token
        end = skipped + 1 if skipped else PROMPT
        has_questions |= skipped > 0
        prompt = tokens[np.asarray(segments) > 0][:end][-MAX_PROMPT:]
        if len(prompt):
            prompts.append(prompt.tolist())
    if tokenizer.eos_id is not None and not has_questions:
        prompts.insert(0, [tokenizer.eos_id])
    return prompts[:count]


def generate_samples(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[list[int]], max_tokens: int
) -> list[Sample]:
    """A sample for each prompt of a causal language model.

    Raises:
        DataError: its logits are not finite.
    """
    samples = []
    for prompt in prompts:
        text = "" if prompt == [tokenizer.eos_id] else tokenizer.decode(prompt)
        samples.append(Sample(prompt=text, text="", end="time"))
    request = GenerationConfig(max_tokens=max_tokens, batch_size=len(prompts))
    start = time.monotonic()
    chunks = generate(model, tokenizer, prompts, request)
    for number, chunk in enumerate(chunks, 1):
        sample = samples[chunk.row]
        sample.text += chunk.text
        sample.end = chunk.end or "time"
        seconds = time.monotonic() - start
        is_enough = seconds > SECONDS and number >= MIN_TOKENS * len(prompts)
        if is_enough or seconds > MAX_SECONDS:
            break
    return samples
