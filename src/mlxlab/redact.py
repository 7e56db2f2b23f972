"""Credentials in URLs: removed from whatever is printed or stored, and recognised so that a config can refuse them."""

import re

CREDENTIALS = (
    "refused: a URL with credentials, and a config is printed, stored and tracked; set them in the environment "
    "(MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, HF_TOKEN)"
)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://(?:(?![A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s'\"<>`|\\])*")
_VALUE = re.compile(r"=[^&;#]+")
_PLAIN_PARAMETERS = frozenset({"dl", "download", "format", "mode", "raw", "ref", "revision", "uri", "version"})


def redact(text: str) -> str:
    """`text` with the user, the password and every query value of each URL in it replaced by `***`."""
    return _URL.sub(lambda match: _redact_url(match[0]), text) if "://" in text else text


def has_credentials(text: str) -> bool:
    """True if a URL in `text` has a user or password, or a query parameter that is not known to be harmless."""
    return any(_is_secret(url) for url in _URL.findall(text)) if "://" in text else False


def _redact_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    login = _login_end(rest)
    address, mark, query = rest[login:].partition("?")
    address, hash_mark, fragment = address.partition("#")
    query, fragment = _VALUE.sub("=***", query), _VALUE.sub("=***", fragment)
    return f"{scheme}://{'***@' if login else ''}{address}{hash_mark}{fragment}{mark}{query}"


def _login_end(rest: str) -> int:
    """The index after `user:password@`; 0 without one. A password may hold slashes, question marks and at signs."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, colon, port = host.rpartition(":")
    if "@" in host or (colon and not port.isdecimal() and not user.startswith("[")):
        return rest.rfind("@") + 1
    return 0


def _is_secret(url: str) -> bool:
    rest = url.partition("://")[2]
    if _login_end(rest):
        return True
    parameters = re.split(r"[?&;#]", rest)[1:]
    names = [name.lower() for name, equals, value in (item.partition("=") for item in parameters) if equals and value]
    return any(name not in _PLAIN_PARAMETERS for name in names)
