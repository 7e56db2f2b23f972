"""Environment variables in a config: a config is printed, saved and tracked, so none of them may be a secret."""

import os
import re

from mlxlab.errors import ConfigError

_SECRET = re.compile(
    r"(?i)key|secret|token|passw|passphrase|credential|private|auth|cookie|session|signature|(^|_)(pat|pin|pwd)$"
)
_LOGIN = re.compile(r"://[^/\s]*:[^/\s]*@")  # a password inside an address


class SecretInConfigError(ConfigError):
    """Somebody asked for a secret; the message never holds its value."""


def read_environment(name: str, *default: object) -> object:
    """The resolver behind `${oc.env:NAME}` and `${oc.env:NAME,default}`."""
    if _SECRET.search(name):
        raise SecretInConfigError(
            f"the environment variable {name} may hold a secret, and a config is printed and tracked"
        )
    value = os.environ.get(name)
    if value is None:
        if not default:
            raise ConfigError(f"the environment variable {name} is not set")
        return None if default[0] is None else str(default[0])
    if _LOGIN.search(value):
        raise SecretInConfigError(
            f"the environment variable {name} holds a password, and a config is printed and tracked"
        )
    return value
