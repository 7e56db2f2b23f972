"""Renders chat templates in a process with limits; a script that `chat_template` runs.

A template is a program of a stranger. Jinja's sandbox keeps it from private attributes and from
changes of its arguments; the kernel refuses more memory, and ends the process when a conversation
takes too long.

The first line of standard input is the program as JSON, each further one a list of requests; a line
of standard output answers each list. Nothing of this package is imported: the process starts fast.
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT = 2**24  # characters of a conversation
MAX_MEMORY = 2**30  # bytes
ANSWER_START = "\ufdd0"  # A message that holds one of these noncharacters is refused.
ANSWER_END = "\ufdd1"
BLOCK = re.compile(f"{ANSWER_START}(.*?){ANSWER_END}", re.DOTALL)
GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
TODAY = datetime(2025, 1, 1)  # A resumed run must render the same text on another day.

Request = dict[str, Any]
Reply = dict[str, Any]
Span = tuple[int, int]


class Generation(jinja2.ext.Extension):
    """`{% generation %}`: marks what the assistant writes."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return f"{ANSWER_START}{caller()}{ANSWER_END}"


class ChatProgram:
    """A compiled template; raises whatever Jinja and the template do."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, jinja2.ext.loopcontrols],
        )
        # The functions are those of transformers, without random ones.
        del environment.filters["random"]
        del environment.globals["lipsum"]
        environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
        environment.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": TODAY.strftime,
            **special_tokens,
        }
        self.template = environment.from_string(source)
        self.marks_answers = GENERATION.search(source) is not None

    def answer(self, request: Request) -> Reply:
        """The text of a conversation, with begin and end of those of its answers that are `learned`.

        Generation blocks say where all answers are. Otherwise each lies between the text of the
        messages before it with the header of an answer, and the text of the messages up to it.
        """
        if "text" in request:
            return request
        variables = {"tools": None, "add_generation_prompt": False, **request}
        answers = variables.pop("answers", [])
        learned = variables.pop("learned", [])
        text, spans = split_marks(self._render(variables))
        if not self.marks_answers:
            spans = [self._locate(variables, answers[number], text) for number in learned]
        elif learned:
            if len(spans) != len(answers):
                raise ValueError(f"it marks {len(spans)} answers of {len(answers)}")
            spans = [spans[number] for number in learned]
        text.encode()  # A template may write half of a surrogate pair.
        return {"text": text, "spans": spans, "marked": self.marks_answers}

    def _locate(self, variables: Request, index: int, text: str) -> Span:
        messages = variables["messages"]
        header = {"messages": messages[:index], "add_generation_prompt": True}
        before = self._render(variables | header)
        after = self._render(variables | {"messages": messages[: index + 1]})
        if text.startswith(after) and after.startswith(before):
            return len(before), len(after)
        raise ValueError(
            f"the text up to message {index + 1} is not a beginning of the whole conversation, so"
            " its answer cannot be located (data.loss_on=all needs no locations)"
        )

    def _render(self, variables: Mapping[str, object]) -> str:
        text = self.template.render(variables)
        if len(text) > MAX_OUTPUT:
            raise ValueError(f"a text of {len(text)} characters, expected <= {MAX_OUTPUT}")
        return text


def split_marks(text: str) -> tuple[str, list[Span]]:
    """The text without the marks of generation blocks, and begin and end of each block."""
    spans = []
    for number, match in enumerate(BLOCK.finditer(text)):
        begin = match.start() - 2 * number  # without the marks of earlier blocks
        spans.append((begin, begin + len(match[1])))
    return BLOCK.sub(r"\1", text), spans


def serve(max_seconds: float) -> None:
    """Answers requests until standard input ends."""
    settings = json.loads(sys.stdin.buffer.readline())
    program = None
    for line in sys.stdin.buffer:
        replies = []
        for request in json.loads(line):
            # SIGPROF ends the process after this time, also within a function written in C.
            signal.setitimer(signal.ITIMER_PROF, max_seconds)
            try:
                program = program or ChatProgram(**settings)
                replies.append(program.answer(request))
            except Exception as error:  # A stranger's program raises whatever it likes.
                cause = str(error)[:1000] or type(error).__name__
                replies.append({"error": cause, "line": getattr(error, "lineno", None)})
        sys.stdout.buffer.write(json.dumps(replies).encode() + b"\n")
        sys.stdout.buffer.flush()


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


if __name__ == "__main__":
    with suppress(ValueError):  # A Mac has no such limit; a lower one of the user stays.
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    # Ctrl-C and the signal to stop are for the parent, which saves the run with batches from here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(float(sys.argv[1]))
