"""The architectures of the installed mlx-lm: which there are, and a model of one from a config.json.

Code comes from that package only: a config names a module of it, never a file or another package.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxlab.errors import ConfigError, NotAllowedError, ServiceUnavailableError
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.schema.constraints import Layers, ModelSize
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.program import install_command

PACKAGE = "mlx_lm.models"
CODE_KEYS = ("auto_map", "model_file")  # A config.json names code in its folder by these.
UNUSED_TOKENS = (
    "_dummy_tokenizer_ids"  # phi3small writes to their logits, also where the vocabulary is smaller
)
CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_context_length",
)
LAYER_KEYS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_decoder_layers")
VOCABULARY = "vocab_size"
VOCABULARIES = (VOCABULARY, "num_vocab", "embedding_size")  # names of the number of tokens
OF_ANY_MODEL = {  # keys of a config.json that are no sizes
    "model_type",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "initializer_range",
    *VOCABULARIES,
}


def architectures() -> list[str]:
    """The modules of mlx-lm that define a model; ServiceUnavailableError without mlx-lm."""
    package = _import(PACKAGE)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [name for name in names if name not in _SHARED]


_SHARED = (  # modules of layers and caches, without a model
    "activations",
    "base",
    "bitlinear_layers",
    "cache",
    "gated_delta",
    "mla",
    "pipeline",
    "rope_utils",
    "ssm",
    "switch_layers",
)


def new_model(config: Mapping[str, Any], vocab_size: int, title: str) -> nn.Module:
    """The model of a config.json with random weights and this number of tokens, its arrays unevaluated.

    Raises:
        NotAllowedError: the config names code of its own.
        ConfigError: an unknown `model_type`, or mlx-lm cannot build a model of this config.
        ServiceUnavailableError: mlx-lm is not installed.
    """
    module = module_of(config, title)
    check_sizes(config, title)
    settings = with_vocabulary(config, vocab_size)
    try:
        model: nn.Module = module.Model(module.ModelArgs.from_dict(settings))
    except (
        Exception
    ) as error:  # code of others, which raises whatever a missing or wrong key leads to
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(
            f"{title}: mlx-lm cannot build a {config['model_type']}: {reason}"
        ) from None
    if "_no_grad" not in vars(model):
        nn.Module.__init__(model)  # recurrent_gemma does not call it, and could not be trained
    if UNUSED_TOKENS in model:
        model[UNUSED_TOKENS] = mx.array(
            [token for token in model[UNUSED_TOKENS].tolist() if token < vocab_size], mx.int32
        )
    return model


def module_of(config: Mapping[str, object], title: str) -> Any:
    """The module of mlx-lm with the architecture of a config."""
    refuse_code(config, title)
    return _import(f"{PACKAGE}.{_module_name(config, title)}")


def refuse_code(config: Mapping[str, object], title: str) -> None:
    """NotAllowedError if a config.json wants to run code of its own."""
    for key in CODE_KEYS:
        if key in config:
            raise NotAllowedError(f"{title}: asks to run code of its own ({key})")


def with_vocabulary(config: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """The config for this number of tokens; that of a model of text and images has it in `text_config`."""
    others = {key: vocab_size for key in VOCABULARIES if key in config}
    changed = {**config, VOCABULARY: vocab_size, **others}
    text = config.get("text_config")
    if isinstance(text, Mapping):
        changed["text_config"] = {**text, VOCABULARY: vocab_size}
    return changed


def text_value(config: Mapping[str, Any], *keys: str) -> Any:
    """The first of these keys that the config, or its `text_config`, has; None if it has none."""
    sections = _sections(config).values()
    for key in keys:
        for section in sections:
            if section.get(key) is not None:
                return section[key]
    return None


def _sections(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The config, and its `text_config` if it has one, by the prefix of their keys."""
    sections = {"": config}
    text = config.get("text_config")
    if isinstance(text, Mapping):
        sections["text_config."] = text
    return sections


def check_sizes(config: Mapping[str, Any], title: str) -> None:
    """ConfigError for a length or a number of layers that is no whole number within bounds, naming its key."""
    bounds = dict.fromkeys(CONTEXT_KEYS, ModelSize) | dict.fromkeys(LAYER_KEYS, Layers)
    try:
        for prefix, section in _sections(config).items():
            for key, bound in bounds.items():
                if section.get(key) is not None:
                    validate(section[key], bound, prefix + key)
    except ShapeError as error:
        raise ConfigError(f"{title}: {error}") from None


def _module_name(config: Mapping[str, object], title: str) -> str:
    """The module of mlx-lm for a config's `model_type`."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError(f"{title}: expected model_type, the name of an architecture of mlx-lm")
    utils = _import("mlx_lm.utils")
    name = utils.MODEL_REMAPPING.get(model_type, model_type)
    listed = config.get("architectures")
    if isinstance(listed, list):
        for architecture in map(str, listed):
            name = utils.MODEL_ARCHITECTURE_REMAPPING.get((model_type, architecture), name)
    if name not in architectures():
        raise ConfigError(f"{title}: mlx-lm has no architecture {model_type!r}")
    return str(name)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, SystemExit) as error:  # Some modules end the program without a package.
        missing = getattr(error, "name", None) or error
        if missing in ("mlx_lm", PACKAGE):
            needs = f"needs mlx-lm; {install_command('zoo')}"
            raise ServiceUnavailableError(f"model=mlx_lm {needs}") from None
        raise ServiceUnavailableError(f"model=mlx_lm: {name} needs {missing}") from None


def check_keys(config: Mapping[str, object], title: str) -> None:
    """Checks the keys of a config that a user wrote; a published one has keys of other programs too.

    Raises:
        ConfigError: a key that the architecture does not take, or a missing one; names all.
        NotAllowedError, ServiceUnavailableError: as `new_model`.
    """
    arguments = module_of(config, title).ModelArgs
    if arguments.from_dict.__qualname__ != "BaseModelArgs.from_dict":
        return
    parameters = inspect.signature(arguments).parameters
    unknown = [key for key in config if key not in parameters and key not in OF_ANY_MODEL]
    faults = [
        f"{config['model_type']} has no {key}{suggestion(key, parameters)}" for key in unknown
    ]
    required = [
        name for name, parameter in parameters.items() if parameter.default is parameter.empty
    ]
    if missing := [name for name in required if name not in config and name not in OF_ANY_MODEL]:
        faults.append(f"{config['model_type']} needs {', '.join(missing)}")
    if faults:
        raise ConfigError(f"{title}: {'; '.join(faults)}")
