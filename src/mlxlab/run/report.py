"""What a run leaves: `run.lock` while it trains; at its end its record, its pages, samples of text, and the last lines."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from mlxlab import terminal
from mlxlab.checkpoint.state import RunMetadata
from mlxlab.data.dataset import DataModule
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import RunInterrupted, UserError
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.inference.generate import GenerationConfig, generate
from mlxlab.models.model import Model
from mlxlab.past_runs.changes import changed_steps
from mlxlab.past_runs.collect_record import complete
from mlxlab.past_runs.run_lock import FILE, Losses, RunLock, machine, read_lock, versions
from mlxlab.record.run_file import FILE as RECORD
from mlxlab.record.run_record import Sample, Training
from mlxlab.run.context import RunContext
from mlxlab.run.resume.start import Start
from mlxlab.schema.constraints import Count
from mlxlab.terminal.program import display_path
from mlxlab.tracking.tracker import Status, Tracker
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)
GIT_SECONDS = 3.0
PROMPT = 24  # tokens of validation text
MAX_PROMPT = 256  # tokens before an answer
# Texts end after both of these, for each text on average, or after `MAX_SECONDS`.
SECONDS = 0.5
MIN_TOKENS = 20
MAX_SECONDS = 5.0


class RunReport(Callback):
    """Writes `report.html` when the run has ended, however it did; without this callback there is none.

    Args:
        samples: texts that a language model generates at the end, 0 for none; they take half a second at most.
        sample_tokens: max tokens of each.
    """

    def __init__(self, samples: Count, sample_tokens: Count) -> None:
        self.samples = samples
        self.sample_tokens = sample_tokens

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        """Imports the views after the first step, as the source may change before the end."""
        from mlxlab.views import pages  # noqa: F401


def find_report(callbacks: Iterable[Callback]) -> RunReport | None:
    """The first of these callbacks."""
    return next((each for each in callbacks if isinstance(each, RunReport)), None)


@contextmanager
def tracked_until_end(
    tracker: Tracker, context: RunContext, report: RunReport | None
) -> Iterator[None]:
    """Ends a run in the tracker with its status; writes its record and its pages first, however it ended."""
    status: Status = "FAILED"
    failure = None
    try:
        yield
        status = "FINISHED"
    except BaseException as error:
        failure = error
        if isinstance(error, KeyboardInterrupt | RunInterrupted):
            status = "KILLED"
        raise
    finally:
        if context.group.rank == 0:
            try:
                _end(tracker, context, failure, has_page=report is not None)
            except UserError as error:
                if str(error) != str(failure):
                    logger.warning(str(error))
        tracker.end(status)


def _end(
    tracker: Tracker, context: RunContext, failure: BaseException | None, *, has_page: bool
) -> None:
    """Writes `run.json`, `summary.md` and the page, and prints how a finished run ended."""
    from mlxlab.views.pages import (
        REPORT,
        SUMMARY,
        closing_lines,
        run_page,
        summary,
        write_page,
    )
    from mlxlab.views.run_view import RunView

    folder = context.run_dir
    record = context.writer.end(failure)
    complete(record, folder)
    context.writer.write()
    tracker.log_artifact(folder / RECORD)
    view = RunView(record, folder.absolute())
    if record.is_evaluated:
        tracker.log_artifact(write_page(folder / SUMMARY, summary(view)))
    if failure is None:
        lines = closing_lines(RunView(record, Path(display_path(folder))))
        terminal.show(lines.strip())
    if has_page:
        path = write_page(folder / REPORT, run_page(view))
        print(f"report: {display_path(path)}", flush=True)
        tracker.log_artifact(path)


class RunLockRecorder(Callback):
    """Records a run at steps 1, 2, ..., 9, 10, 20, ..., 100, 200, ... and at its end.

    Where a run in the folder is resumed, its losses up to the checkpoint stay.

    Args:
        context: its writer knows the commit once git has answered.
        metadata: that of the checkpoints.
    """

    def __init__(self, context: RunContext, metadata: RunMetadata, start: Start) -> None:
        self.context = context
        self.folder = context.run_dir
        self.metadata = metadata
        self.continues = start.continues
        self.forked_from = start.fork
        self.losses: Losses = {}
        self._warned = False

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.continues:
            return
        try:
            earlier = read_lock(self.folder)
        except UserError as error:
            logger.warning(f"{error}; it will lack the losses of earlier steps")
            return
        self.forked_from = earlier["forked_from"]
        self.losses = {
            step: loss
            for step, loss in earlier["losses"].items()
            if int(step) <= state.progress.step
        }

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step = state.progress.step
        if result.trained and has_one_digit(step):
            loss = None
            if result.weight:
                loss = result.loss / result.weight
            self.losses[str(step)] = loss
            self._write()

    def end(self, outcome: Training) -> None:
        """The run ended, or was stopped and saved."""
        self._lock["outcome"] = {
            "steps": outcome.steps,
            "state": outcome.final_state,
            "objective": outcome.objective,
            "best": outcome.best,
        }
        self._write(wait=GIT_SECONDS)

    def _write(self, wait: float = 0.0) -> None:
        """Replaces the file. A full disk does not end the run."""
        self._lock["code"] = self.context.writer.code(wait)
        try:
            write_json(self.folder / FILE, without_nonfinite(self._lock))
        except OSError as error:
            if not self._warned:
                logger.warning(f"{self.folder / FILE}: not written: {error.strerror or error}")
            self._warned = True

    @cached_property
    def _lock(self) -> RunLock:
        metadata = self.metadata
        return {
            "format": 1,
            "config": metadata["config"],
            "choices": metadata["choices"],
            "overrides": metadata["overrides"],
            "data": metadata["data"],
            "tokenizer": metadata["tokenizer"],
            "teachers": metadata["teachers"],
            "initial_weights": metadata["initial_weights"],
            "versions": versions(),
            "machine": machine(self.context.group.size),
            "code": self.context.writer.code(),
            "forked_from": self.forked_from,
            "changed_at": changed_steps(self.folder),
            "losses": self.losses,
        }


def has_one_digit(step: int) -> bool:
    """Whether a step is one of 1 to 9 times a power of ten."""
    return step > 0 and not str(step)[1:].strip("0")


def sample_prompts(data: DataModule, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Token ids: the end of a document, after which another one begins, then beginnings of validation rows.

    A row that begins with tokens that are no targets, such as a question, is continued behind all of those; where rows
    do, no document is begun without a prompt.
    """
    batch = next(iter(data.valid), None)
    if batch is None:
        return []
    has_questions = False
    prompts = []
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
