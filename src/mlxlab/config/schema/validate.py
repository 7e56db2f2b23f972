"""Validates values against type hints, and those of several keys against each other; collects all issues."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, field
from types import NoneType
from typing import Literal, cast, get_args, get_origin

from mlxlab.config.instantiate import allowed_targets, serves_as
from mlxlab.config.issues import MISSING, UNRESOLVED, ConfigIssue, join_key, one_line, shown, walk
from mlxlab.config.paths import conf_dir
from mlxlab.config.schema.conflicts import conflicts
from mlxlab.config.schema.root import TARGET, node_signature
from mlxlab.config.schema.signature import (
    Component,
    Record,
    Signature,
    alternatives,
    is_union,
    signature,
    unwrap,
)
from mlxlab.constraints import Bound, Ge, Gt, IsFile, Le, Lt, MaxLen, MinLen, satisfies
from mlxlab.nearest import key_suggestion

_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    object: "any value",
}
_SIGNS = {Gt: ">", Ge: ">=", Lt: "<", Le: "<="}


@dataclass
class Validator:
    """Yields the issues of one config. `got(path, value)` formats a value for messages."""

    got: Callable[[str, object], str] = lambda path, value: shown(value)
    all_keys: list[str] = field(default_factory=list)  # of the whole tree, for suggestions

    def config(self, tree: dict[str, object]) -> list[ConfigIssue]:
        """The issues of the keys of a whole config; if there are none, those of values that conflict."""
        return list(self.node(tree, TARGET)) or list(conflicts(tree))

    def node(self, tree: dict[str, object], target: str, path: str = "") -> Iterator[ConfigIssue]:
        """A mapping of arguments against the signature of `target`."""
        known = node_signature(target, path)
        if known is None:
            return
        if not path:
            self.all_keys = [key for key, value in walk(tree) if not isinstance(value, dict)]
        if (
            "_target_" in tree
        ):  # options of a command have none, and the list is made of all files of conf/
            shipped = allowed_targets().get(target)
            if shipped is not None and bool(tree.get("_partial_", False)) != shipped.partial:
                yield ConfigIssue(
                    join_key(path, "_partial_"), f"expected {shown(shipped.partial)} for {target}"
                )
        for key in tree:
            if key not in known.keys and key not in ("_target_", "_partial_"):
                yield ConfigIssue(join_key(path, key), self._unknown(str(key), known, path))
        for key, expected in known.keys.items():
            if key in tree:
                yield from self.value(expected.hint, tree[key], join_key(path, key))
            elif expected.required:
                yield ConfigIssue(
                    join_key(path, key), f"missing; expected {describe(expected.hint)}"
                )

    def value(self, hint: object, value: object, path: str) -> Iterator[ConfigIssue]:
        """One value; nothing is yielded if it is what `hint` allows."""
        expected, bounds = unwrap(hint)
        origin, args = get_origin(expected), get_args(expected)
        if value is UNRESOLVED:
            return
        if value == MISSING:
            yield ConfigIssue(path, f"missing; expected {describe(hint)}")
        elif is_union(expected):
            yield from self._union(hint, expected, value, path)
        elif isinstance(expected, Record) and isinstance(value, dict):
            yield from self.node(value, expected.target, path)
        elif isinstance(expected, Component) and isinstance(value, dict) and "_target_" in value:
            yield from self._component(expected, value, path)
        elif expected is object and isinstance(value, dict) and "_target_" in value:
            yield from self.node(value, str(value["_target_"]), path)
        elif _is_collection(origin, value) and all(satisfies(value, bound) for bound in bounds):
            for key, item in _items(value):
                yield from self.value(args[-1], item, join_key(path, key))
        elif not _fits(expected, value) or not all(satisfies(value, bound) for bound in bounds):
            yield ConfigIssue(path, self._expected(hint, value, path))

    def _union(
        self, hint: object, union: object, value: object, path: str
    ) -> Iterator[ConfigIssue]:
        options = get_args(union)
        if isinstance(value, dict) and any(isinstance(option, Record) for option in options):
            yield from self._tagged(union, value, path)
            return
        tries = [list(self.value(option, value, path)) for option in options]
        if all(tries):
            inside = [issues for issues in tries if any(issue.path != path for issue in issues)]
            # A component of another kind comes last: the value was not meant to be one.
            inside.sort(key=lambda issues: issues[0].path == join_key(path, "_target_"))
            yield from inside[0] if inside else [self._misfit(hint, value, path)]

    def _component(
        self, expected: Component, value: dict[str, object], path: str
    ) -> Iterator[ConfigIssue]:
        target = str(value["_target_"])
        if serves_as(target, expected.name):
            yield from self.node(value, target, path)
        else:
            message = f"expected a component of kind {expected.name}, got {target}"
            yield ConfigIssue(join_key(path, "_target_"), message)

    def _tagged(self, union: object, value: dict[str, object], path: str) -> Iterator[ConfigIssue]:
        """A mapping against that record of a union which has the same tag: a key with one allowed value each."""
        records = [option for option in get_args(union) if isinstance(option, Record)]
        tags = {record: dict(_tags(record)) for record in records}
        chosen = [
            record
            for record in records
            if all(value.get(key) == tag for key, tag in tags[record].items())
        ]
        if chosen:
            yield from self.node(value, chosen[0].target, path)
            return
        key = next(iter(tags[records[0]]))
        known: object = Literal[*(tag for record in records for tag in tags[record].values())]
        yield from self.value(known, value.get(key, MISSING), join_key(path, key))

    def _misfit(self, hint: object, value: object, path: str) -> ConfigIssue:
        """The issue of a value that no part of a union allows: at the first key in it, if that is of no option."""
        group = path.replace(".", "/")
        if (
            isinstance(value, dict)
            and value
            and "_target_" not in value
            and (options := _components(group))
        ):
            keys = one_line(", ".join(map(str, value)), 60)
            message = (
                f"no option is chosen that has {keys}; add {group}=OPTION ({', '.join(options)})"
            )
            return ConfigIssue(join_key(path, next(iter(value))), message)
        return ConfigIssue(path, self._expected(hint, value, path))

    def _expected(self, hint: object, value: object, path: str) -> str:
        group = path.replace(".", "/")
        is_component = any(isinstance(each, Component) for each in alternatives(hint))
        if is_component and isinstance(value, str) and value in _components(group):
            return f"an option of a config group, expected {group}={value}"
        if isinstance(hint, Component) and isinstance(value, dict):
            return f"expected a component; choose one with {group}=..., or give its _target_"
        got = self.got(path, value)
        is_item = isinstance(value, str) and any(
            get_origin(unwrap(each)[0]) is list for each in alternatives(hint)
        )
        form = f"; for a list of one: {path}=[{got}]" if is_item else ""
        return f"expected {describe(hint)}, got {got}" + _detail(hint, value) + form

    def _unknown(self, key: str, known: Signature, path: str) -> str:
        if key in known.runtime:
            return "not a key of the config: the program passes it when it builds the component"
        elsewhere = [name for name in self.all_keys if name != join_key(path, key)]
        return "unknown key" + key_suggestion(key, known.keys, path, elsewhere)


def _components(group: str) -> list[str]:
    """The options of a config group that may be null; none if there is no such group."""
    return sorted(
        file.stem
        for file in (conf_dir() / group).glob("*.yaml")
        if file.stem not in ("none", "null")
    )


def _tags(record: Record) -> Iterator[tuple[str, object]]:
    """The keys of a record that allow one value only, with that value."""
    known = signature(record.target)
    for name, key in known.keys.items() if known is not None else ():
        options = get_args(key.hint) if get_origin(key.hint) is Literal else ()
        if len(options) == 1:
            yield name, options[0]


def describe(hint: object) -> str:
    """`a whole number >= 1`, `one of gelu, swiglu`, `a list with at least 1 item: text`, ..."""
    expected, bounds = unwrap(hint)
    origin, args = get_origin(expected), get_args(expected)
    if isinstance(expected, Component):
        return "a component (a mapping with a _target_)"
    if isinstance(expected, Record):
        known = signature(expected.target)
        return f"a mapping with the keys {', '.join(known.keys if known is not None else ())}"
    if is_union(expected):
        return " or ".join(dict.fromkeys(map(describe, args)))
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(shown, args))
    if origin is dict:
        return f"a mapping of names to {describe(args[1])}"
    if origin is list:
        return f"a list{_item_count(bounds)}: {describe(args[0])}"
    if IsFile() in bounds:
        return "a file"
    limits = [f"{sign} {limit:.15g}" for sign, limit in _limits(bounds) if abs(limit) < 1e12]
    return f"{_NAMES[expected]} {' and '.join(limits)}".rstrip()


def _item_count(bounds: tuple[Bound, ...]) -> str:
    low = next((bound.min_length for bound in bounds if isinstance(bound, MinLen)), 0)
    high = next((bound.max_length for bound in bounds if isinstance(bound, MaxLen)), None)
    if low == high:
        return f" of exactly {low}"
    length = f" with at least {low} item{'s' if low > 1 else ''}" if low else ""
    return length if high is None else f"{length} and at most {high}"


def _limits(bounds: tuple[Bound, ...]) -> list[tuple[str, float]]:
    """(sign, limit) of each bound of a number."""
    return [
        (_SIGNS[type(bound)], *astuple(bound))
        for bound in bounds
        if isinstance(bound, Gt | Ge | Lt | Le)
    ]


def _is_collection(origin: object, value: object) -> bool:
    return origin in (dict, list) and type(value) is origin


def _items(value: object) -> Iterable[tuple[object, object]]:
    """The items of a mapping by key, those of a list by index."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(cast(list[object], value))


def _fits(kind: object, value: object) -> bool:
    """Whether a scalar has the right type. A whole number is accepted for a float; true is never a number."""
    if get_origin(kind) is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(kind))
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:  # also NaN
        return False
    if isinstance(value, str) and "\0" in value:
        return False
    return kind is object or type(value) is kind or (kind is float and type(value) is int)


def _detail(hint: object, value: object) -> str:
    """What the text of a value does not show: its type, a limit that is not described."""
    options = [unwrap(option) for option in alternatives(hint)]
    kinds = [kind for kind, _ in options]
    if isinstance(value, str):
        return "" if {int, float, bool}.isdisjoint(kinds) else " (text)"
    if not isinstance(value, bool | int | float):
        return ""
    detail = " (quote it: '\"...\"')" if str in kinds else ""
    if isinstance(value, float) and int in kinds and float not in kinds:
        detail = " (a number with a fraction or an exponent)"
    bounds = [] if isinstance(value, bool) else [bound for _, bounds in options for bound in bounds]
    limits = [
        limit for bound in bounds for _, limit in _limits((bound,)) if not satisfies(value, bound)
    ]
    hidden = [limit for limit in limits if abs(limit) >= 1e12]
    return detail + (f"; the limit is {hidden[0]:.6g}" if hidden else "")
