"""A folder of adapters for PEFT in place of that of their run."""

import re
from contextlib import suppress
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_text
from mlxlab.wording import one_line

_RUN_FOLDER = re.compile(
    r"^mlxlab train .*?hydra\.run\.dir=([^\s']+)", re.MULTILINE
)  # in its model card


def refuse_peft_adapters(folder: Path) -> None:
    """InputNotFoundError for adapters that `export peft` wrote; with the folder of their run, as the card has it."""
    if not (folder / "adapter_config.json").is_file():
        return
    recorded = None
    with suppress(InputNotFoundError, DataError):
        recorded = _RUN_FOLDER.search(read_text(folder / "README.md"))
    run = f": {one_line(recorded[1], 200)}" if recorded else ""
    raise InputNotFoundError(f"{folder}: adapters for PEFT; take the run that they are of{run}")
