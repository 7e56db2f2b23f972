"""The model card of an exported model: what it is, how good it is, what it was made from, and how to load it."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from mlxlab.files.untrusted import read_text
from mlxlab.models.interop.counterpart import Counterpart, Ending
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.models.pretrained.load import HUB_ID
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line
from mlxlab.views.escape import MAX_TEXT
from mlxlab.views.render import render
from mlxlab.views.tables import Column, Table

Command = tuple[str, Sequence[str]]  # a comment, such as `continued at step 50`, and the overrides
CARD_LICENSE = re.compile(
    r"\A---\n(?:.*\n)*?license:\s*[\"']?([^\s\"']+)[\"']?\s*\n(?:.*\n)*?---\n"
)
LICENSE = re.compile(r"[\w.+-]{1,64}")
PIPELINES: dict[Ending, str] = {  # -> task of a hub
    "ForCausalLM": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
}
TRANSFORMERS, MLX_LM, PEFT = "transformers", "mlx", "peft"  # libraries, as a hub names them


@dataclass(frozen=True)
class BaseModel:
    """Published weights that a model started from.

    Args:
        name: a hub id, or that of a folder or file.
        license: an identifier, "" if its files name none.
    """

    name: str
    license: str = ""
    is_hub_id: bool = False


@dataclass(frozen=True)
class Origin:
    """What a model was made from.

    Args:
        name: of the run.
        data: where it came from, and the option of the config.
        commands: of the command line that began its run, and of those that continued it.
        hashes: by what they identify.
        metrics: of the exported weights.
        bases: published weights that it started from.
    """

    name: str
    data: str
    step: int
    commands: Sequence[Command] = (("", ()),)
    hashes: Mapping[str, str] = field(default_factory=dict)
    metrics: Table | None = None
    bases: tuple[BaseModel, ...] = ()


def model_card(
    origin: Origin,
    counterpart: Counterpart,
    parameters: int,
    notes: list[str],
    libraries: Sequence[str],
    base: str | None = None,
    *,
    chats: bool = False,
) -> str:
    """Markdown with the header that model hubs read.

    Args:
        libraries: that load the model; it is listed under the first.
        base: arguments by which transformers loads the base model, where the card is that of adapters for it.
        chats: whether the tokenizer has a chat template, by which the examples write their prompt.
    """
    hashes = Table([Column("of"), Column("hash")])
    for name, digest in origin.hashes.items():
        if digest:
            hashes.add([name, digest])
    commands = []
    for comment, overrides in origin.commands:
        line = shlex.join(["mlxlab", "train", *map(redact, overrides)])
        commands.append((comment, Markup(one_line(line, MAX_TEXT))))
    return render(
        "model_card.md",
        origin=origin,
        model=counterpart.name,
        loader=f"AutoModel{counterpart.ending}",
        pipeline=PIPELINES[counterpart.ending],
        parameters=parameters,
        licenses=[*{each.license for each in origin.bases}],
        published=[each.name for each in origin.bases if each.is_hub_id],
        notes=[Markup(note) for note in notes],
        libraries=libraries,
        base=base and Markup(base),
        chats=chats,
        hashes=hashes,
        commands=commands,
    )


def read_base_model(name: str) -> BaseModel:
    """The model of `model.pretrained` or `model.init_from`: the license is that of its model card or GGUF header."""
    path = Path(os.path.expanduser(name))
    found: object = ""
    with suppress(InputNotFoundError, DataError, NotAllowedError):  # it may be gone since
        if path.suffix == ".gguf":
            found = read_gguf(path)[1].get("general.license")
        else:
            # Resolved: the files of a downloaded snapshot are symbolic links.
            match = CARD_LICENSE.match(read_text((path / "README.md").resolve()))
            found = match and match[1]
    license_name = ""
    if isinstance(found, str) and LICENSE.fullmatch(found):
        license_name = found
    if path.exists() or not HUB_ID.fullmatch(name):
        return BaseModel(path.name, license_name)
    return BaseModel(name, license_name, is_hub_id=True)
