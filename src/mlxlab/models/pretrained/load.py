"""Pretrained models by name: Hugging Face folders of BERT and Llama type, hub ids, and GGUF files of Llama type."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import InputNotFoundError, ServiceUnavailableError
from mlxlab.files.atomic import write_atomic
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.models.pretrained.shape import read_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def resolve(name: str) -> Path:
    """The folder or GGUF file of a pretrained model; a hub id is downloaded.

    Raises:
        InputNotFoundError: no such folder, and not a hub id.
        ServiceUnavailableError: the hub cannot be reached, or its client is not installed.
    """
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix == ".gguf":
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise InputNotFoundError(f"model.pretrained={name}: no such folder, and not a hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ServiceUnavailableError(
            f"model.pretrained={name}: no such folder; for hub ids install mlxlab[hub]"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise ServiceUnavailableError(
            f"model.pretrained={name}: download from the hub failed ({type(error).__name__})"
        ) from None


def save_config(name: str, folder: Path) -> None:
    """Writes the model's config.json into `folder`, so that its shape can be read without the model."""
    path = resolve(name)
    if path.suffix == ".gguf":
        text = json.dumps(dict(read_config(path)), indent=1) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
    else:
        shutil.copyfile(path / "config.json", folder / "config.json")


def tokenizer_dir(name: str, cache: Path) -> Path:
    """The folder with the tokenizer.json of a pretrained model; that of a GGUF file is extracted below `cache`."""
    path = resolve(name)
    if path.suffix != ".gguf":
        return path
    tokenizer = gguf_tokenizer(path)
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache / "pretrained" / key
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tokenizer.json", tokenizer.to_str())
    return folder


def gguf_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer in a GGUF file."""
    from mlxlab.data.tokenizers.gguf import tokenizer_from

    return tokenizer_from(read_gguf(path)[1], path)
