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
    r"\A---\n(?:.*\n)*?license:\s*[\"']?([^\s\"']+)[\"']?\s*\n(?:.*\n)*?---\n"
)
LICENSE = re.compile(r"[\w.+-]{1,64}")
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
    found: object = ""
    with suppress(InputNotFoundError, DataError, NotAllowedError):  # it may be gone since
        if path.suffix == ".gguf":
            found = read_gguf(path)[1].get("general.license")
        else:
            # Resolved: the files of a downloaded snapshot are symbolic links.
            match = CARD_LICENSE.match(read_text((path / "README.md").resolve()))
            found = match and match[1]
    license_name = found if isinstance(found, str) and LICENSE.fullmatch(found) else ""
    is_hub_id = not path.exists() and HUB_ID.fullmatch(name) is not None
    return BaseModel(name if is_hub_id else path.name, license_name, is_hub_id)
