"""A conversation with a language model, by its chat template: in Python, or in a terminal."""

import logging
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mlxlab.config.paths import project_root
from mlxlab.data.chat.chat_template import ChatTokenizer, load_template
from mlxlab.data.chat.conversation import Message
from mlxlab.errors import ConfigError, DataError
from mlxlab.inference.generate import GenerationConfig, TextChunk, generate
from mlxlab.inference.restore import template_folder
from mlxlab.inference.text_generator import TextGenerator, load_generator
from mlxlab.models.pretrained.load import tokenizer_dir
from mlxlab.terminal.wording import one_line

logger = logging.getLogger(__name__)
_HELP = (
    "type a message; /reset forgets the conversation, /exit or Ctrl-D ends, /help shows this line;"
    " //text sends the message /text; Ctrl-C stops an answer, what there is of it stays in the conversation,"
    " and at the prompt ends"
)
_COMMAND = re.compile(r"/[^\W\d_]\S*")  # a slash and a letter begin a command


class Reply(NamedTuple):
    """An answer as it is generated; `forgotten` of the oldest messages were left out for it."""

    chunks: Generator[TextChunk]
    forgotten: int


@dataclass
class Chat:
    """Messages and answers in turn.

    Args:
        system: the message that every conversation begins with; None for none.
    """

    generator: TextGenerator
    tokenizer: ChatTokenizer
    system: str | None = None
    messages: list[Message] = field(default_factory=list)  # without that of the system

    def reply(self, text: str, request: GenerationConfig) -> Reply:
        """The answer to a message.

        Half of the context is left for the answer, or `max_tokens` if that is less.

        Raises:
            DataError: the message holds a special token, does not fit into the context, or the template fails.
        """
        request = self.generator.limited(request)
        assert request.context_length is not None
        limit = request.context_length - min(request.max_tokens, request.context_length // 2)
        try:
            self.tokenizer.check_text(text)
            prompt, forgotten = self._prompt(
                [*self.messages, Message(role="user", content=text)], limit
            )
            end_ids = frozenset(self.tokenizer.end_ids)
        except ValueError as error:
            raise DataError(str(error)) from None
        return Reply(self._answer(prompt, end_ids, request), forgotten)

    def reset(self) -> None:
        """Forgets the conversation."""
        self.messages = []

    def drop_unanswered(self) -> None:
        """Forgets the last message if its answer was stopped before its first character."""
        if self.messages and not self.messages[-1]["content"]:
            self.messages.pop()
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages.pop()

    def _prompt(self, messages: list[Message], limit: int) -> tuple[list[int], int]:
        """The tokens of the last messages, at most `limit`, and how many earlier ones were left out."""
        system = [Message(role="system", content=self.system)] if self.system else []
        for first in range(0, len(messages), 2):  # a message and its answer at a time
            shown = [*system, *messages[first:]]
            rendered = self.tokenizer.template.render(shown, add_generation_prompt=True)
            prompt = self.tokenizer.encode(rendered)
            if len(prompt) <= limit:
                self.messages = messages[first:]
                return prompt, first
        raise DataError(
            f"a message of {len(prompt)} tokens, expected at most {limit} in the context of the model"
        )

    def _answer(
        self,
        prompt: list[int],
        end_ids: frozenset[int],
        request: GenerationConfig,
    ) -> Generator[TextChunk]:
        model = self.generator.model
        tokenizer = self.generator.tokenizer
        answer = ""
        try:
            for chunk in generate(model, tokenizer, [prompt], request, end_ids):
                answer += chunk.text
                yield chunk
        finally:
            self.messages.append(Message(role="assistant", content=answer))


def load_chat(run: Path, checkpoint: str = "best", system: str | None = None) -> Chat:
    """A chat with the model of a run, a GGUF file or a Llama-type folder.

    Raises:
        ConfigError: it has no chat template. Otherwise as `load_generator`.
    """
    generator = load_generator(run, checkpoint)
    folder = (
        tokenizer_dir(str(run), project_root() / ".cache")
        if run.suffix == ".gguf"
        else template_folder(run)
    )
    template = load_template(folder, generator.tokenizer)
    if template is None:
        expected = "expected a run of data=instruct or a pretrained chat model; without chat=true it continues texts"
        raise ConfigError(f"{run}: has no chat template: {expected}")
    return Chat(generator, ChatTokenizer(template, generator.tokenizer), system)


def talk(chat: Chat, request: GenerationConfig) -> None:
    """Answers each line of standard input until it ends, or a line is `/exit`; `/reset` forgets the conversation.

    A line that begins with a slash and a letter is a command; of one with two slashes the first is removed.
    In a terminal a message that cannot be answered costs a line; else DataError is raised. Ctrl-C there stops an
    answer, and at the prompt ends the chat.
    """
    in_terminal = sys.stdin.isatty()
    if in_terminal:
        logger.info(_HELP)
    for line in _terminal_lines() if in_terminal else _piped_lines():
        message = line.strip()
        if message == "/exit":
            return
        if message == "/help":
            logger.info(_HELP)
        elif message == "/reset":
            chat.reset()
            logger.info("the conversation is forgotten")
        elif command := _COMMAND.match(message):
            logger.warning(f"unknown command {one_line(command[0], 40)}; /help lists them")
        elif message and in_terminal:
            _answer_in_terminal(chat, message, request)
        elif message:
            _answer(chat, message, request)


def _answer_in_terminal(chat: Chat, message: str, request: GenerationConfig) -> None:
    try:
        _answer(chat, message, request)
    except DataError as error:
        logger.warning(str(error))
    except KeyboardInterrupt:
        chat.drop_unanswered()
        print(flush=True)
        logger.info("the answer is stopped")


def _answer(chat: Chat, message: str, request: GenerationConfig) -> None:
    message = re.sub(r"^//", "/", message)
    chunks, forgotten = chat.reply(message, request)
    if forgotten:
        logger.warning(f"the context is full: the oldest {forgotten} messages are forgotten")
    with closing(chunks):  # one that is stopped is in the conversation at once
        for chunk in chunks:
            print(chunk.text, end="", flush=True)
    print(flush=True)


def _terminal_lines() -> Iterator[str]:
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return


def _piped_lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise DataError(f"standard input:{number}: is not UTF-8") from None
