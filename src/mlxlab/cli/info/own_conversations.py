"""Counts conversations of your own, and names a row that is none."""

import json as json_format
from contextlib import suppress
from typing import Any

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.help_index import chosen, folders
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError, UserError
from mlxlab.wording import counted

OPTION, MODEL = "instruct", "transformer"
COLUMNS = {"data.text_column", "data.target"}  # of labelled rows


def are_conversations(args: list[str], source: str) -> bool:
    """Whether the overrides choose `data=instruct`, or choose no data and the source has conversations."""
    keys = {arg.partition("=")[0] for arg in args}
    if chosen(folders(conf_dir(), args), args).get("data") == OPTION:
        return True
    if "data" in keys or keys & COLUMNS:
        return False
    return _has_conversations(source)


def _has_conversations(source: str) -> bool:
    """Whether local files hold conversations, by their columns; a plain `text` is none."""
    from mlxlab.data.chat.conversation import find_layouts
    from mlxlab.data.sources.block import ErrorBudget
    from mlxlab.data.sources.open import Reading, is_local, open_source

    with suppress(UserError):  # What is missing or malformed is reported when it is read.
        if is_local(source):
            columns = open_source(source, Reading(), ErrorBudget("skip")).columns()
            return bool({*find_layouts(columns)} - {"text"})
    return False


def show_conversations(args: list[str], json: bool) -> None:
    """Prints the number of conversations, and a row that holds none.

    Raises:
        ConfigError: the overrides are not valid, or choose a model that does not predict the next token.
        InputNotFoundError, DataError: as `open_conversations`.
    """
    from mlxlab.config.hydra.compose import Composer

    options = chosen(folders(conf_dir(), args), args)
    args = args if options.get("data") == OPTION else [f"data={OPTION}", *args]
    is_typed = any(arg.startswith("model=") for arg in args)
    args = args if is_typed or options.get("model") != "bert" else [f"model={MODEL}", *args]
    config = Composer(conf_dir(), args).checked_values(resolve=True)
    from mlxlab import backend

    backend.prepare()
    from mlxlab.models.build import build_backbone

    if not build_backbone(config["model"], vocab_size=1).causal:
        raise ConfigError(
            f"data={OPTION}: expected a model that predicts the next token, such as model={MODEL}"
        )
    counts = count_conversations(config["data"])
    if json:
        print_json(counts)
    else:
        terminal.show("\n".join(_describe(counts)))


def count_conversations(node: dict[str, Any]) -> dict[str, Any]:
    """The conversations of a data node, their messages and answers, and rows that hold none."""
    from mlxlab.config.instantiate import instantiate
    from mlxlab.data.chat.conversation import find_answers
    from mlxlab.data.chat.dataset import open_conversations
    from mlxlab.data.sources.block import ErrorBudget
    from mlxlab.data.sources.open import Reading

    errors = ErrorBudget("skip", max_fraction=1.0)
    reading = instantiate(node["reading"], Reading)
    window = node["shuffle"]["window"]
    source = open_conversations(node["source"], reading, node["layout"], errors, window)
    counts = dict.fromkeys(("conversations", "messages", "answers"), 0)
    for _, documents in source.windows(0, 0):
        for document in documents:
            conversation = json_format.loads(document.text)
            counts["conversations"] += 1
            if "messages" in conversation:
                counts["messages"] += len(conversation["messages"])
                counts["answers"] += len(find_answers(conversation))
    return {"name": source.name, **counts, "malformed": errors.skipped, "fault": errors.first}


def _describe(counts: dict[str, Any]) -> list[str]:
    messages = counted(counts["messages"], "message")
    answers = counted(counts["answers"], "answer")
    conversations = counted(counts["conversations"], "conversation")
    lines = [f"{counts['name']}: {conversations}, {messages}, {answers}"]
    if counts["malformed"]:
        rows = counted(counts["malformed"], "row")
        lines.append(f"{rows} without a conversation, one of them: {counts['fault']}")
    return lines
