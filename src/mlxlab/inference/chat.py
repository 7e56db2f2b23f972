"""A conversation with a language model, by its chat template."""

from collections.abc import Generator
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
