"""Counts conversations of your own, and names the first line that is none."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.help_index import chosen, folders
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.wording import counted

if TYPE_CHECKING:
    from mlxlab.data.instruct.summary import ConversationSummary

OPTION, MODEL = "instruct", "transformer"
COLUMNS = {"data.text_column", "data.label_column", "data.target"}  # of labelled rows


def are_conversations(args: list[str], source: str) -> bool:
    """Whether the overrides choose `data=instruct`, or choose no data and the source has conversations."""
    keys = {arg.partition("=")[0] for arg in args}
    if chosen(folders(conf_dir(), args), args).get("data") == OPTION:
        return True
    if "data" in keys or keys & COLUMNS:
        return False
    from mlxlab.data.instruct.summary import has_conversations

    return has_conversations(source)


def show_conversations(args: list[str], json: bool) -> None:
    """Prints the number of conversations, and the first line that holds none.

    Raises:
        ConfigError: the overrides are not valid, or choose a model that does not predict the next token.
        InputNotFoundError, DataError: as `summarize`.
    """
    from mlxlab.config.hydra.compose import Composer

    options = chosen(folders(conf_dir(), args), args)
    args = args if options.get("data") == OPTION else [f"data={OPTION}", *args]
    is_typed = any(arg.startswith("model=") for arg in args)
    args = args if is_typed or options.get("model") != "bert" else [f"model={MODEL}", *args]
    config = Composer(conf_dir(), args).checked_values(resolve=True)
    from mlxlab import backend

    backend.prepare()
    from mlxlab.data.instruct.summary import summarize
    from mlxlab.models.build import build_backbone

    if not build_backbone(config["model"], vocab_size=1).causal:
        raise ConfigError(
            f"data={OPTION}: expected a model that predicts the next token, such as model={MODEL}"
        )
    summary = summarize(config["data"]["source"], config["data"]["layout"])
    if json:
        print_json(asdict(summary))
    else:
        terminal.show("\n".join(_described(summary)))


def _described(summary: "ConversationSummary") -> list[str]:
    counts = f"{counted(summary.messages, 'message')}, {counted(summary.answers, 'answer')}"
    lines = [f"{summary.name}: {counted(summary.conversations, 'conversation')}, {counts}"]
    if summary.malformed:
        lines.append(
            f"{counted(summary.malformed, 'line')} without a conversation, the first: {summary.first_fault}"
        )
    return lines
