"""Pretrained models by name: Hugging Face folders of BERT and Llama type, hub ids, and GGUF files of Llama type."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import InputNotFoundError, ServiceUnavailableError
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.models.pretrained.shape import read_config

if TYPE_CHECKING:
    from mlxlab.data.tokenizers.tokenizer import Tokenizer


def resolve(name: str) -> Path:
    """The folder or GGUF file of a pretrained model; a hub id is downloaded.

    Raises:
        InputNotFoundError: no such folder, and not a hub id.
        ServiceUnavailableError: the hub cannot be reached, or its client is not installed.
    """
    path, title = Path(name).expanduser(), f"model.pretrained={name}"
    if path.is_dir() or path.suffix == ".gguf":
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise InputNotFoundError(f"{title}: no such folder, and not a hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ServiceUnavailableError(f"{title}: no such folder; for hub ids install mlxlab[hub]") from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise ServiceUnavailableError(f"{title}: download from the hub failed ({type(error).__name__})") from None


def save_config(name: str, folder: Path) -> None:
    """Writes a config.json into `folder` from which the model's shape can be read without the model."""
    write_json(folder / "config.json", read_config(resolve(name)))


def tokenizer_dir(name: str, cache: Path) -> Path:
    """The folder with the tokenizer.json of a pretrained model; that of a GGUF file is extracted below `cache`."""
    path = resolve(name)
    if path.suffix != ".gguf":
        return path
    text = pretrained_tokenizer(path).inner.to_str()
    folder = cache / "pretrained" / hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tokenizer.json", text)
    return folder


def pretrained_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer of a folder or GGUF file."""
    from mlxlab.data.tokenizers.gguf import tokenizer_from
    from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer

    return Tokenizer(tokenizer_from(read_gguf(path)[1], path)) if path.suffix == ".gguf" else load_tokenizer(path)
