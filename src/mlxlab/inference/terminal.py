"""Talks with a language model in a terminal: reads messages from standard input and prints the answers."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import closing

from mlxlab.errors import DataError
from mlxlab.inference.chat import Chat
from mlxlab.inference.generate import GenerationConfig
from mlxlab.terminal.wording import one_line

log = logging.getLogger(__name__)

_HELP = (
    "type a message; /reset forgets the conversation, /exit or Ctrl-D ends, /help shows this line;"
    " //text sends the message /text; Ctrl-C stops an answer, what there is of it stays in the conversation,"
    " and at the prompt ends"
)
_COMMAND = re.compile(r"/[^\W\d_]\S*")  # a slash and a letter begin a command


def talk(chat: Chat, request: GenerationConfig) -> None:
    """Answers each line of standard input until it ends, or a line is `/exit`; `/reset` forgets the conversation.

    A line that begins with a slash and a letter is a command; of one with two slashes the first is removed.
    In a terminal a message that cannot be answered costs a line; else DataError is raised. Ctrl-C there stops an
    answer, and at the prompt ends the chat.
    """
    in_terminal = sys.stdin.isatty()
    if in_terminal:
        log.info(_HELP)
    for line in _terminal_lines() if in_terminal else _piped_lines():
        message = line.strip()
        if message == "/exit":
            return
        if message == "/help":
            log.info(_HELP)
        elif message == "/reset":
            chat.reset()
            log.info("the conversation is forgotten")
        elif command := _COMMAND.match(message):
            log.warning(f"unknown command {one_line(command[0], 40)}; /help lists them")
        elif message and in_terminal:
            _answer_in_terminal(chat, message, request)
        elif message:
            _answer(chat, message, request)


def _answer_in_terminal(chat: Chat, message: str, request: GenerationConfig) -> None:
    try:
        _answer(chat, message, request)
    except DataError as error:
        log.warning(str(error))
    except KeyboardInterrupt:
        chat.drop_unanswered()
        print(flush=True)
        log.info("the answer is stopped")


def _answer(chat: Chat, message: str, request: GenerationConfig) -> None:
    message = re.sub(r"^//", "/", message)
    chunks, forgotten = chat.reply(message, request)
    if forgotten:
        log.warning(f"the context is full: the oldest {forgotten} messages are forgotten")
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
