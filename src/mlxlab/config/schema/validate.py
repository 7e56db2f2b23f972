"""Validates values against type hints, recursively; collects all errors."""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlxlab.config.allowlist import allowed_targets
from mlxlab.config.issues import ConfigIssue, join_key, walk
from mlxlab.config.schema import types
from mlxlab.config.schema.signature import Signature, signature
from mlxlab.config.suggest import SYNONYMS, did_you_mean, nearest, nearest_key, suggestion

_HOLDS = {"Gt": operator.gt, "Ge": operator.ge, "Lt": operator.lt, "Le": operator.le}


@dataclass
class Validator:
    """Yields the issues of one config. `got(path, value)` formats a value for messages."""

    got: Callable[[str, object], str] = lambda path, value: types.shown(value)
    all_keys: list[str] = field(default_factory=list)  # of the whole tree, for suggestions

    def node(self, tree: dict[str, object], target: str, path: str = "") -> Iterator[ConfigIssue]:
        """A mapping of arguments against the signature of `target`."""
        known = signature(target)
        if known is None:
            return
        if not path:
            self.all_keys = [key for key, value in walk(tree) if not isinstance(value, dict)]
        if "_target_" in tree:  # options of a command have none, and the list is made of all files of conf/
            shipped = allowed_targets().get(target)
            if shipped is not None and bool(tree.get("_partial_", False)) != shipped.partial:
                yield ConfigIssue(join_key(path, "_partial_"), f"expected {types.shown(shipped.partial)} for {target}")
        for key in tree:
            if key not in known.keys and key not in ("_target_", "_partial_"):
                yield ConfigIssue(join_key(path, key), self._unknown(str(key), known, path))
        for key, expected in known.keys.items():
            if key in tree:
                yield from self.value(expected.kind, tree[key], join_key(path, key))
            elif expected.required:
                yield ConfigIssue(join_key(path, key), f"missing; expected {types.describe(expected.kind)}")

    def value(self, kind: types.Kind, value: object, path: str) -> Iterator[ConfigIssue]:
        """One value; nothing is yielded if it is what `kind` allows."""
        match kind, value:
            case _ if value is types.UNRESOLVED:
                return
            case _, str() if value == types.MISSING:
                yield ConfigIssue(path, f"missing; expected {types.describe(kind)}")
            case types.Union(options=options), _:
                tries = [list(self.value(option, value, path)) for option in options]
                if all(tries):
                    inside = [issues for issues in tries if any(issue.path != path for issue in issues)]
                    yield from inside[0] if inside else [ConfigIssue(path, self._expected(kind, value, path))]
            case types.Component(name=name), dict() as node if "_target_" in node:
                target = str(node["_target_"])
                if _serves_as(target, name):
                    yield from self.node(node, target, path)
                else:
                    message = f"expected a component of kind {name}, got {target}"
                    yield ConfigIssue(join_key(path, "_target_"), message)
            case types.Mapping(value=inner), dict():
                for key, item in value.items():
                    yield from self.value(inner, item, join_key(path, key))
            case types.ListOf(item=inner), list() if kind.min_length <= len(value) <= (kind.max_length or math.inf):
                for index, item in enumerate(value):
                    yield from self.value(inner, item, join_key(path, index))
            case _ if not _fits(kind, value):
                yield ConfigIssue(path, self._expected(kind, value, path))

    def _expected(self, kind: types.Kind, value: object, path: str) -> str:
        if isinstance(kind, types.Component) and isinstance(value, dict):
            return f"expected a component; choose one with {path.replace('.', '/')}=..., or give its _target_"
        return f"expected {types.describe(kind)}, got {self.got(path, value)}" + _hint(types.alternatives(kind), value)

    def _unknown(self, key: str, known: Signature, path: str) -> str:
        if key in known.runtime:
            return "not a key of the config: the program passes it when it builds the component"
        if key in SYNONYMS or nearest(key, known.keys) is None:
            here = join_key(path, key)
            if anywhere := nearest_key(key, [name for name in self.all_keys if name != here]):
                return "unknown key" + did_you_mean(anywhere)
        return "unknown key" + suggestion(key, known.keys, f"{path}." if path else "")


def _serves_as(target: str, kind: str) -> bool:
    """False if conf/ uses `target` only as other kinds of component. A user's own target is checked when built."""
    shipped, name = allowed_targets().get(target), target.rpartition(".")[2]
    roles = shipped.roles() if shipped is not None else ()
    return name == kind or not roles or (kind in roles and name not in roles)


def _fits(kind: types.Kind, value: object) -> bool:
    match kind:
        case types.Number(integer=integer, bounds=bounds):
            if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
                return False
            return math.isfinite(value) and all(_HOLDS[name](value, limit) for name, limit in bounds)
        case types.Text(file=file):
            return isinstance(value, str) and "\0" not in value and (not file or _may_be_read(value))
        case types.Literal(options=options):
            return any(type(value) is type(option) and value == option for option in options)
    return False


def _may_be_read(text: str) -> bool:
    """A missing file is reported where it is read; a folder, device, pipe or `-` is not a file."""
    if text.strip() in ("", "-"):
        return False
    try:
        path = Path(text).expanduser()
        return path.is_file() or not path.exists()
    except OSError:
        return False


def _hint(kinds: tuple[types.Kind, ...], value: object) -> str:
    """Details that the text of a value does not show: its type, a limit that is not described, a name close to it."""
    numbers = [kind for kind in kinds if isinstance(kind, types.Number)]
    if isinstance(value, str):
        options = [option for kind in kinds if isinstance(kind, types.Literal) for option in kind.options]
        near = nearest(value, [option for option in options if isinstance(option, str)])
        return (" (text)" if numbers or types.BOOLEAN in kinds else "") + did_you_mean(near)
    if not isinstance(value, bool | int | float):
        return ""
    hint = " (quote it: '\"...\"')" if any(isinstance(kind, types.Text) for kind in kinds) else ""
    if isinstance(value, float) and numbers and all(number.integer for number in numbers):
        hint = " (a number with a fraction or an exponent)"
    bounds = [] if isinstance(value, bool) else [bound for number in numbers for bound in number.bounds]
    limits = [limit for name, limit in bounds if abs(limit) >= 1e12 and not _HOLDS[name](value, limit)]
    return hint + (f"; the limit is {limits[0]:.6g}" if limits else "")
