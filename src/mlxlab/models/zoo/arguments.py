"""The keys of a config.json that an architecture of mlx-lm takes, and those that it needs."""

import inspect
from collections.abc import Mapping

from mlxlab.errors import ConfigError
from mlxlab.models.zoo.architectures import VOCABULARIES, module_of
from mlxlab.terminal.nearest import suggestion

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
