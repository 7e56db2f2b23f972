"""Continues texts with a trained language model, printing tokens as they are generated.

    mlxlab generate run=RUN_FOLDER prompt="Once upon a time" [key=value ...]
    mlxlab generate run=RUN_FOLDER prompts=FILE [key=value ...] > results.jsonl
    mlxlab generate run=RUN_FOLDER chat=true [system=TEXT] [key=value ...]

The text goes to standard output, messages to standard error.
"""

import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mlxlab.cli.app import prepare_inference
from mlxlab.errors import ConfigError
from mlxlab.terminal.messages import activity
from mlxlab.terminal.wording import counted

if TYPE_CHECKING:
    from mlxlab.inference.generate import GenerationConfig, TextChunk

log = logging.getLogger(__name__)


def generate(
    run: Path,
    checkpoint: str = "best",
    prompt: str = "",
    prompts: Path | None = None,
    chat: bool = False,
    system: str | None = None,
    json: bool = False,
    **options: "Unpack[GenerationConfig]",  # type: ignore[misc]
) -> None:
    """Prints the continuations.

    Args:
        run: a run folder, a GGUF file, or a folder of Llama-type weights.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        prompt: the text to continue; \\n is a line break, in stop too; empty begins a document.
        prompts: a file with a prompt per line, or .jsonl with objects that have a `prompt`; prints JSON lines.
        chat: talk with the model by its chat template: a message per line of standard input, until it ends or /exit;
            /reset forgets the conversation.
        system: what the model is told before a chat.
        json: prints a JSON line for the prompt, too.
    """
    if chat and (prompt or prompts is not None or json):
        raise ConfigError(
            "chat=true: expected neither prompt=, prompts= nor --json; messages come from standard input"
        )
    if system is not None and not chat:
        raise ConfigError("system=: expected chat=true")
    if prompt and prompts is not None:
        raise ConfigError("prompt= and prompts=: expected one of the two")
    if not checkpoint:
        raise ConfigError("checkpoint=: expected a name or a path")
    from mlxlab.inference.text_generator import read_prompts

    texts = [prompt.replace("\\n", "\n")] if prompts is None else read_prompts(prompts)
    # A token's products are too small to share: two threads were 10 times slower wherever another process ran.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    prepare_inference()
    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.text_generator import load_generator

    more: dict[str, Any] = {**options}
    more["stop"] = [text.replace("\\n", "\n") for text in more.get("stop", [])]
    request = GenerationConfig(**more)
    if chat:
        from mlxlab.inference.chat import load_chat, talk

        with activity(f"loading {run}"):
            loaded = load_chat(run, checkpoint, system)
        talk(loaded, request)
        return
    with activity(f"loading {run}"):
        writer = load_generator(run, checkpoint)
    request = writer.limited(request)
    for number, text in enumerate(texts, 1):
        length = len(writer.tokens(text, request.new_document))
        if request.context_length is not None and length > request.context_length:
            log.warning(
                f"prompt {number}: truncated to its last {request.context_length:,} of {length:,} tokens"
            )
    start = time.perf_counter()
    chunks = writer.stream(texts, request)
    if json or prompts is not None:
        tokens, ended = _print_lines(texts, chunks)
    else:
        tokens, ended = _print_text(texts[0], chunks)
    seconds = time.perf_counter() - start
    log.info(
        f"{counted(tokens, 'token')} in {seconds:.1f} s, {tokens / max(seconds, 1e-9):,.0f} tokens/s{ended}"
    )


def _print_text(prompt: str, chunks: Iterable["TextChunk"]) -> tuple[int, str]:
    """Prints a prompt and its continuation as it is generated; returns the number of tokens and why it ended."""
    print(prompt, end="", flush=True)
    for chunk in chunks:
        print(chunk.text, end="", flush=True)
    print()
    return chunk.tokens, f"; ended by: {chunk.end}"


def _print_lines(prompts: list[str], chunks: Iterable["TextChunk"]) -> tuple[int, str]:
    """Prints a JSON line for each prompt, in the order of the prompts; returns the number of tokens."""
    lines = [{"prompt": prompt, "text": "", "end": ""} for prompt in prompts]
    tokens = [0] * len(lines)
    written = 0
    for chunk in chunks:
        lines[chunk.row] |= {"text": lines[chunk.row]["text"] + chunk.text, "end": chunk.end}
        tokens[chunk.row] = chunk.tokens
        while written < len(lines) and lines[written]["end"]:
            print(json.dumps(lines[written], ensure_ascii=False), flush=True)
            written += 1
    return sum(tokens), ""
