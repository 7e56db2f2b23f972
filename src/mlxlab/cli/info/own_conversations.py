"""Counts conversations of your own, and names the first line that is none and the command that trains on them."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.help_index import chosen, folders
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.program import join
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
    """Prints the number of conversations, the first line that holds none, and the command that trains on them.

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
    from mlxlab.data.text.document import MAX_MALFORMED_FRACTION
    from mlxlab.models.build import build_backbone

    if not build_backbone(config["model"], vocab_size=1).causal:
        raise ConfigError(
            f"data={OPTION}: expected a model that predicts the next token, such as model={MODEL}"
        )
    summary = summarize(config["data"]["source"], config["data"]["layout"])
    lines = summary.conversations + summary.malformed
    can_train = summary.malformed <= MAX_MALFORMED_FRACTION * lines
    skips = summary.malformed and config["data"]["on_error"] == "strict"
    others = [arg for arg in args if not (skips and arg.startswith("data.on_error="))]
    train = f"mlxlab train {join([*others, *(['data.on_error=skip'] if skips else [])])}"
    if json:
        print_json({**asdict(summary), "train": train if can_train else None})
        return
    way_out = f"train on the others: {train}" if skips else f"train on it: {train}"
    refused = f"correct them to train: data.on_error=skip leaves out at most {100 * MAX_MALFORMED_FRACTION:g} %"
    terminal.show("\n".join([*_described(summary), way_out if can_train else refused]))


def _described(summary: "ConversationSummary") -> list[str]:
    counts = f"{counted(summary.messages, 'message')}, {counted(summary.answers, 'answer')}"
    lines = [f"{summary.name}: {counted(summary.conversations, 'conversation')}, {counts}"]
    if summary.malformed:
        lines.append(
            f"{counted(summary.malformed, 'line')} without a conversation, the first: {summary.first_fault}"
        )
    return lines
