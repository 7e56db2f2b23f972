"""Credentials in URLs: removed from whatever is printed or stored, and recognised so that a config can refuse them."""

import re

CREDENTIALS = (
    "refused: a URL with credentials, and a config is printed, stored and tracked; set them in the environment "
    "(MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, HF_TOKEN)"
)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://(?:(?![A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s'\"<>`|\\])*")
_HARMLESS = r"(?:dl|download|format|mode|raw|ref|revision|uri|version)="
_PARAMETER = re.compile(rf"(?i)([?&;#](?!{_HARMLESS})[^=?&;#]*=)[^?&;#]+")


def redact(text: str) -> str:
    """`text` with the user and password of each URL in it, and query values that may be secret, replaced by `***`."""
    return _URL.sub(lambda match: _redact_url(match[0]), text) if "://" in text else text


def has_credentials(text: str) -> bool:
    """True if a URL in `text` has a user or password, or a query parameter that is not known to be harmless."""
    return redact(text) != text


def _redact_url(url: str) -> str:
    scheme, _, address = url.partition("://")
    host = re.split(r"[/?#]", address, maxsplit=1)[0]
    user, colon, port = host.rpartition(":")
    # A password may hold slashes, question marks and at signs. Without an at sign, a colon may end a URL in a message.
    password = colon and not port.isdecimal() and (port or "@" in address) and not user.startswith("[")
    if "@" in host or password:
        address = "***@" + address[address.rfind("@") + 1 :]
    return f"{scheme}://" + _PARAMETER.sub(r"\1***", address)
