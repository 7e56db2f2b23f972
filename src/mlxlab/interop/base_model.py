"""Published weights that a model started from: their name and license, for its model card."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from mlxlab.files.untrusted import read_text
from mlxlab.models.pretrained.gguf import read_gguf

CARD_LICENSE = re.compile(
    r"\A---\n(?:.*\n)*?license:\s*[\"']?([\w.+-]{1,64})[\"']?\s*\n(?:.*\n)*?---\n"
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


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


def read_base_model(name: str) -> BaseModel:
    """The model of `model.pretrained` or `model.init_from`: the license is that of its model card or GGUF header."""
    path = Path(os.path.expanduser(name))
    license_name = ""
    with suppress(InputNotFoundError, DataError, NotAllowedError):  # it may be gone since
        license_name = (
            _gguf_license(path) if path.suffix == ".gguf" else _card_license(path / "README.md")
        )
    is_hub_id = not path.exists() and HUB_ID.fullmatch(name) is not None
    return BaseModel(name if is_hub_id else path.name, license_name, is_hub_id)


def _card_license(card: Path) -> str:
    match = CARD_LICENSE.match(
        read_text(card.resolve())
    )  # the files of a downloaded snapshot are symbolic links
    return match[1] if match else ""


def _gguf_license(file: Path) -> str:
    value = read_gguf(file)[1].get("general.license")
    return value if isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,64}", value) else ""
