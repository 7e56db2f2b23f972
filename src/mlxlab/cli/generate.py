"""Continues texts with a trained language model, printing tokens as they are generated.

    mlxlab generate run=RUN_FOLDER prompt="Once upon a time" [key=value ...]
    mlxlab generate run=RUN_FOLDER prompts=FILE [key=value ...] > results.jsonl

The text goes to standard output, messages to standard error.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab.cli.app import run_command
from mlxlab.cli.args import parse_values
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, DataError, InputNotFoundError

if TYPE_CHECKING:
    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.sampling import SamplingParams
    from mlxlab.inference.text_generator import TextGenerator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateOptions:
    """Options of `generate`.

    Args:
        run: a run folder, a GGUF file, or a folder of Llama-type weights.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint; the best one if not given.
        prompt: the text to continue; \\n is a line break, in stop too; empty begins a document.
        prompts: a file with a prompt per line, or .jsonl with objects that have a `prompt`; prints JSON lines.
        preset: sampling options to start from: factual, balanced, creative, widest.
    """

    run: str
    checkpoint: str | None = None
    prompt: str = ""
    prompts: str | None = None
    preset: str | None = None


OPTIONS = f"{__name__}.GenerateOptions"
SAMPLING, REQUEST = "mlxlab.inference.sampling.SamplingParams", "mlxlab.inference.generate.GenerationConfig"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_command(__doc__, argv, _generate, options=[OPTIONS, REQUEST, SAMPLING])


def _generate(args: list[str]) -> None:
    typed, names, _ = parse_values(args, [OPTIONS, REQUEST, SAMPLING])
    if names:
        raise ConfigError(f"{names[0]}: expected key=value")
    typed |= {"stop": [_lines(text) for text in typed["stop"]]} if "stop" in typed else {}
    for name in ("run", "checkpoint", "prompts"):
        if typed.get(name) == "":
            raise ConfigError(f"{name}=: expected a path")
    if "prompt" in typed and "prompts" in typed:
        raise ConfigError("prompt= and prompts=: expected one of the two")
    preset = _preset(typed.get("preset"))
    prompts = read_prompts(Path(typed["prompts"])) if "prompts" in typed else None
    from mlxlab import backend

    # A token's products are too small to share: two threads were 10 times slower wherever another process ran.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    backend.prepare()
    from dataclasses import fields, replace

    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.text_generator import load_generator

    checkpoint = Path(typed["checkpoint"]) if "checkpoint" in typed else None
    writer = load_generator(Path(typed["run"]).expanduser(), checkpoint)
    request = writer.limited(GenerationConfig(**_select(typed, [field.name for field in fields(GenerationConfig)])))
    sampling = replace(preset, **_select(typed, [field.name for field in fields(preset)]))
    if prompts is None:
        _stream(writer, _lines(typed.get("prompt", "")), sampling, request)
    else:
        _all(writer, prompts, sampling, request)


def _lines(text: str) -> str:
    """`\\n` as a line break, which is hard to type in a shell."""
    return text.replace("\\n", "\n")


def _select(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _preset(name: str | None) -> "SamplingParams":
    from mlxlab.inference.sampling import PRESETS, SamplingParams

    if name is not None and name not in PRESETS:
        raise ConfigError(f"preset={name}: unknown{suggestion(name, PRESETS)}")
    return PRESETS[name] if name is not None else SamplingParams()


def read_prompts(path: Path) -> list[str]:
    """A prompt per line, or the `prompt` of each object of a `.jsonl` file.

    Raises:
        InputNotFoundError: the file cannot be read.
        DataError: a line is malformed, or there is none.
    """
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from None
    prompts = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                prompts.append(json.loads(text)["prompt"] if path.suffix == ".jsonl" else text)
                prompts[-1].encode()
        except UnicodeError:
            raise DataError(f"{path}:{number}:1: is not UTF-8") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f'{path}:{number}:1: expected {{"prompt": "..."}}') from None
    if not prompts:
        raise DataError(f"{path}:1:1: has no prompt")
    return prompts


def _stream(writer: "TextGenerator", prompt: str, sampling: "SamplingParams", request: "GenerationConfig") -> None:
    _warn_truncated(writer, [prompt], request)
    print(prompt, end="", flush=True)
    start = time.perf_counter()
    for piece in writer.stream([prompt], sampling, request):
        print(piece.text, end="", flush=True)
    print()
    _report(piece.tokens, time.perf_counter() - start, f"; ended by: {piece.end}")


def _all(writer: "TextGenerator", prompts: list[str], sampling: "SamplingParams", request: "GenerationConfig") -> None:
    """A JSON line for each prompt, in the order of the prompts."""
    _warn_truncated(writer, prompts, request)
    start = time.perf_counter()
    texts, ends, tokens = [""] * len(prompts), [""] * len(prompts), [0] * len(prompts)
    written = 0
    for piece in writer.stream(prompts, sampling, request):
        texts[piece.row] += piece.text
        ends[piece.row], tokens[piece.row] = piece.end, piece.tokens
        while written < len(prompts) and ends[written]:
            line = {"prompt": prompts[written], "text": texts[written], "end": ends[written]}
            print(json.dumps(line, ensure_ascii=False), flush=True)
            written += 1
    _report(sum(tokens), time.perf_counter() - start)


def _warn_truncated(writer: "TextGenerator", prompts: list[str], request: "GenerationConfig") -> None:
    for number, tokens in _too_long(writer, prompts, request):
        log.warning(f"prompt {number}: truncated to its last {request.context_length} of {tokens} tokens")


def _too_long(writer: "TextGenerator", prompts: list[str], request: "GenerationConfig") -> Iterator[tuple[int, int]]:
    for number, prompt in enumerate(prompts, 1):
        tokens = len(writer.tokens(prompt, request.new_document))
        if request.context_length is not None and tokens > request.context_length:
            yield number, tokens


def _report(tokens: int, seconds: float, more: str = "") -> None:
    log.info(f"{tokens} tokens in {seconds:.1f} s, {tokens / max(seconds, 1e-9):.0f} tokens/s{more}")
