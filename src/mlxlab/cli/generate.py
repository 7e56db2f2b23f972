"""Continues texts with a trained language model, as they come.

    generate.py run=RUN_FOLDER prompt="Once upon a time" [key=value ...]
    generate.py run=RUN_FOLDER prompts=FILE [key=value ...] > results.jsonl

run          a run folder; or a GGUF file, or a folder of Llama-type weights, as it is
checkpoint   best (default), last, emergency, step-N, or the path of a checkpoint
prompt       the text to go on from; \\n is a line break, in stop too; without it the model begins a document
prompts      a file with a prompt a line, or .jsonl with objects that have a `prompt`: one JSON line for each, in order
preset       values for the options of drawing to begin with: factual, balanced, creative, widest

The text goes to standard output, what is said about it beside it.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab.cli.app import run_program
from mlxlab.cli.args import describe_args, parse_args
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, DataError, InputNotFoundError

if TYPE_CHECKING:
    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.sampling import SamplingParams
    from mlxlab.inference.text_generator import TextGenerator

SAMPLING, REQUEST = "mlxlab.inference.sampling.SamplingParams", "mlxlab.inference.generate.GenerationConfig"
PLAIN = ("run", "checkpoint", "prompt", "prompts", "preset")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    heading = __doc__
    if not words or {"-h", "--help", "help"} & set(words):
        heading = f"{__doc__}\nKeys: default, what it may be, what it means\n\n{describe_args([REQUEST, SAMPLING])}"
    try:
        return run_program(heading, words, _generate)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _generate(words: list[str]) -> None:
    given = parse_args(words, [REQUEST, SAMPLING], PLAIN)
    given |= {"stop": [_lines(text) for text in given["stop"]]} if "stop" in given else {}
    for name in ("run", "checkpoint", "prompts"):
        if given.get(name) == "":
            raise ConfigError(f"{name}=: expected a path")
    if "run" not in given:
        raise ConfigError("run=...: missing; expected the folder of a run")
    if "prompt" in given and "prompts" in given:
        raise ConfigError("prompt= and prompts=: expected one of the two")
    preset = _preset(given.get("preset"))
    prompts = read_prompts(Path(given["prompts"])) if "prompts" in given else None
    from mlxlab import backend

    # A token's products are too small to share: two threads were 10 times slower wherever another process ran.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    backend.prepare()
    from dataclasses import fields, replace

    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.text_generator import load_generator

    checkpoint = Path(given["checkpoint"]) if "checkpoint" in given else None
    writer = load_generator(Path(given["run"]).expanduser(), checkpoint)
    request = writer.limited(GenerationConfig(**_of(given, [one.name for one in fields(GenerationConfig)])))
    sampling = replace(preset, **_of(given, [one.name for one in fields(preset)]))
    if prompts is None:
        _stream(writer, _lines(given.get("prompt", "")), sampling, request)
    else:
        _all(writer, prompts, sampling, request)


def _lines(text: str) -> str:
    """A line break is hard to type in a shell."""
    return text.replace("\\n", "\n")


def _of(given: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _preset(name: str | None) -> "SamplingParams":
    from mlxlab.inference.sampling import PRESETS, SamplingParams

    if name is not None and name not in PRESETS:
        raise ConfigError(f"preset={name}: unknown{suggestion(name, PRESETS)}")
    return PRESETS[name] if name is not None else SamplingParams()


def read_prompts(path: Path) -> list[str]:
    """A prompt a line, or of `.jsonl` the `prompt` of each object.

    Raises:
        InputNotFoundError: it is not there. DataError: a line is not what it should be, or there is none.
    """
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from None
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                found.append(json.loads(text)["prompt"] if path.suffix == ".jsonl" else text)
                found[-1].encode()
        except UnicodeError:
            raise DataError(f"{path}:{number}:1: is not UTF-8") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f'{path}:{number}:1: expected {{"prompt": "..."}}') from None
    if not found:
        raise DataError(f"{path}:1:1: has no prompt")
    return found


def _stream(writer: "TextGenerator", prompt: str, sampling: "SamplingParams", request: "GenerationConfig") -> None:
    _warn_cut(writer, [prompt], request)
    print(prompt, end="", flush=True)
    start = time.perf_counter()
    for piece in writer.write([prompt], sampling, request):
        print(piece.text, end="", flush=True)
    print()
    _say(piece.tokens, time.perf_counter() - start, f"; the end: {piece.end}")


def _all(writer: "TextGenerator", prompts: list[str], sampling: "SamplingParams", request: "GenerationConfig") -> None:
    """A JSON line for each prompt, as soon as those before it are written."""
    _warn_cut(writer, prompts, request)
    start = time.perf_counter()
    texts, ends, tokens = [""] * len(prompts), [""] * len(prompts), [0] * len(prompts)
    written = 0
    for piece in writer.write(prompts, sampling, request):
        texts[piece.row] += piece.text
        ends[piece.row], tokens[piece.row] = piece.end, piece.tokens
        while written < len(prompts) and ends[written]:
            line = {"prompt": prompts[written], "text": texts[written], "end": ends[written]}
            print(json.dumps(line, ensure_ascii=False), flush=True)
            written += 1
    _say(sum(tokens), time.perf_counter() - start)


def _warn_cut(writer: "TextGenerator", prompts: list[str], request: "GenerationConfig") -> None:
    for number, tokens in _too_long(writer, prompts, request):
        print(f"prompt {number}: of its {tokens} tokens the last {request.context} are seen (context)", file=sys.stderr)


def _too_long(writer: "TextGenerator", prompts: list[str], request: "GenerationConfig") -> Iterator[tuple[int, int]]:
    for number, prompt in enumerate(prompts, 1):
        tokens = len(writer.tokens(prompt, request.at_start))
        if request.context is not None and tokens > request.context:
            yield number, tokens


def _say(tokens: int, seconds: float, more: str = "") -> None:
    print(f"{tokens} tokens in {seconds:.1f} s, {tokens / max(seconds, 1e-9):.0f} a second{more}", file=sys.stderr)
