"""Text that a language model generates at the end of a run, `samples.json`: a new document, and validation text."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mlxlab.data.dataset import DataModule
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import DataError
from mlxlab.experiment.collect_record import SAMPLES
from mlxlab.files.atomic import write_json
from mlxlab.inference.generate import GenerationConfig, generate
from mlxlab.inference.sampling import SamplingParams
from mlxlab.models.model import Model
from mlxlab.record.run_record import Sample
from mlxlab.tracking.tracker import Tracker

SECONDS, MIN_TOKENS = 0.5, 20  # of each text on average: the texts end after both,
MAX_SECONDS = 5.0  # or after this
PROMPT = 24  # tokens of validation text
MAX_PROMPT = 256  # tokens before an answer


def write_samples(
    model: Model, data: DataModule, tracker: Tracker, folder: Path, count: int, max_tokens: int
) -> None:
    """Writes and logs texts of a causal language model; none if its logits are not finite."""
    tokenizer = data.tokenizer
    prompts = sample_prompts(data, tokenizer, count)
    samples: list[Sample] = []
    with suppress(DataError):
        samples = generate_samples(model, tokenizer, prompts, max_tokens)
    if samples:
        write_json(folder / SAMPLES, [asdict(each) for each in samples])
        tracker.log_artifact(folder / SAMPLES)


def sample_prompts(data: DataModule, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Token ids: the end of a document, after which another one begins, then beginnings of validation rows.

    A row that begins with tokens that are no targets, such as a question, is continued behind all of those; where rows
    do, no document is begun without a prompt.
    """
    end, has_questions = tokenizer.eos_id, False
    prompts: list[list[int]] = []
    batch = next(iter(data.valid), None)
    rows = (
        ()
        if batch is None
        else zip(batch.tokens, batch.segment_ids, batch.loss_weights, strict=True)
    )
    for tokens, segments, weights in rows:
        skipped = int(np.argmax(np.asarray(weights) > 0))  # weights are those of the next token
        has_questions |= skipped > 0
        end_of_prompt = skipped + 1 if skipped else PROMPT
        row = tokens[np.asarray(segments) > 0][:end_of_prompt][-MAX_PROMPT:]
        if len(row):
            prompts.append([int(token) for token in row])
    starts = [[end]] if end is not None and not has_questions else []
    return [*starts, *prompts][:count]


def generate_samples(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[list[int]], max_tokens: int
) -> list[Sample]:
    """A sample for each prompt."""
    shown = ["" if prompt == [tokenizer.eos_id] else tokenizer.decode(prompt) for prompt in prompts]
    samples = [Sample(prompt=text, text="", end="time") for text in shown]
    start = time.monotonic()
    if prompts:
        request = GenerationConfig(max_tokens=max_tokens, batch_size=len(prompts))
        for number, chunk in enumerate(
            generate(model, tokenizer, prompts, SamplingParams(), request), 1
        ):
            samples[chunk.row].text += chunk.text
            samples[chunk.row].end = chunk.end or "time"
            seconds = time.monotonic() - start
            if seconds > MAX_SECONDS or (seconds > SECONDS and number >= MIN_TOKENS * len(prompts)):
                break
    return samples
