"""Removes credentials from what is printed or stored, and recognises those in URLs, so that configs refuse them."""

import re
from difflib import SequenceMatcher

CREDENTIALS = "refused: a URL with credentials, and a config is printed, stored and tracked; set them in the environment"
VARIABLES = {  # that hold credentials, by the scheme of the addresses that they are for
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT_KEY"),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    "": ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN"),
}

_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{0,30}://(?:(?![A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s'\"<>`|\\])*"
)
_HARMLESS = r"(?:dl|download|format|mode|raw|ref|revision|uri|version)="
_SECRET = re.compile(
    r"(?i)secret|passw|credential|(?:^|[._-])(?:api|access)?(?:key|token|sas)(?:$|[._-])"
)
_MISSPELT = 0.85  # similarity of the names
_SUGGESTED = re.compile(r"; did you mean (\S+)\?")
_PLAIN = re.compile(
    r"(?i)[+-]?[\d._]{1,12}(?:e[+-]?\d{1,3})?|true|false|null|"
)  # values that are no secret
_PARAMETER = re.compile(rf"(?i)([?&;#](?!{_HARMLESS})[^=?&;#]*=)[^?&;#]+")

_KEY = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|npm_|pypi-)[A-Za-z0-9_-]{12,}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----END)[\s\S]){0,20000}"
)
_ASSIGNMENT = re.compile(
    r"""(?i)((?:password|passwd|secret|token|api_?key|access_?key)["']?\s{0,20}[:=]\s{0,20})"""
    r"""("[^"\n]{6,}"|'[^'\n]{6,}'|(?=[a-z+/_=-]{0,200}\d)[a-z0-9+/_=-]{16,})"""
)


def redact(text: str) -> str:
    """`text` with the user and password of each URL in it, and query values that may be secret, replaced by `***`."""
    if "://" not in text:
        return text
    return _URL.sub(lambda match: _redact_url(match[0]), text)


def redact_secrets(text: str) -> str:
    """`text`, such as source code, with what looks like a key or the value of a password replaced by `***`."""
    return _ASSIGNMENT.sub(r"\1***", _KEY.sub("***", text))


def has_credentials(text: str) -> bool:
    """True if a URL in `text` has a user or password, or a query parameter that is not known to be harmless."""
    return redact(text) != text


def why_refused(text: str) -> str:
    """Why a text with credentials is refused, with the variables of the environment that it should be in."""
    for scheme, names in VARIABLES.items():
        if scheme and f"{scheme}://" in text.lower():
            return f"{CREDENTIALS} ({', '.join(names)}; see docs/how_to/cloud.md)"
    return f"{CREDENTIALS} ({', '.join(VARIABLES[''])})"


def issue_line(label: str, message: str) -> str:
    """A line on an issue of a config. An unknown key may have been typed for a secret: then its value is left out.

    Where the message suggests a key of nearly the same name that holds no secret, a number is shown, and credentials
    are not mentioned.

    Args:
        label: `key=value`, which a key inside of the value may follow: `key={...}: key.inside`.
    """
    if not message.startswith("unknown key"):
        return f"{label}: {message}"
    typed, separator, inside = label.partition(": ")
    if re.search(r"[}\]]: ", label):  # A mapping that was typed may hold colons too.
        typed, separator, inside = label.rpartition(": ")
    typed_key, equals, value = typed.partition("=")
    key = inside or typed_key
    suggested = _SUGGESTED.search(message)
    last = key.rpartition(".")[2].lstrip("-+")
    is_misspelt = False
    if suggested is not None and not _SECRET.search(suggested[1]):
        near = suggested[1].rpartition(".")[2].lstrip("-+")
        is_misspelt = SequenceMatcher(None, last, near).ratio() >= _MISSPELT
    if not _SECRET.search(key) or (is_misspelt and _PLAIN.fullmatch(value)):
        return f"{label}: {message}"
    hidden = f"{typed_key}{equals and '=***'}{separator}{inside}"
    if is_misspelt:
        return f"{hidden}: {message}"
    fitting = [name for each in VARIABLES.values() for name in each if name.endswith(last.upper())]
    variables = f" as {fitting[0]}" if len(fitting) == 1 else ""
    return f"{hidden}: {message}; credentials are read from the environment only{variables}"


def _redact_url(url: str) -> str:
    scheme, _, address = url.partition("://")
    host = re.split(r"[/?#]", address, maxsplit=1)[0]
    user, colon, port = host.rpartition(":")
    # A password may hold slashes, question marks and at signs. Without an at sign, a colon may end a URL in a message.
    password = (
        colon and not port.isdecimal() and (port or "@" in address) and not user.startswith("[")
    )
    if "@" in host or password:
        address = "***@" + address[address.rfind("@") + 1 :]
    return f"{scheme}://" + _PARAMETER.sub(r"\1***", address)
