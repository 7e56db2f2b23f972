"""Prints a JSON schema of config files, by which editors complete and check them.

    mlxlab schema > schema.json
    mlxlab schema group=model > model.json

The first one is that of files with `# @package _global_`, which set keys of the whole config, such as
conf/experiment/mine.yaml; the second one of options of a group, such as conf/model/mine.yaml.

Example: the first line of a file, for editors with the YAML language server
    # yaml-language-server: $schema=../../schema.json
"""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from mlxlab.cli.app import print_json
from mlxlab.config.instantiate import allowed_targets, group_of
from mlxlab.config.option_files import groups as config_groups
from mlxlab.config.paths import conf_dir, plugins
from mlxlab.config.schema.root import TARGET, node_signature
from mlxlab.config.schema.signature import (
    Component,
    Record,
    Signature,
    alternatives,
    is_list,
    is_mapping,
    literals,
    unwrap,
)
from mlxlab.errors import ConfigError
from mlxlab.schema.dotted_keys import join_key
from mlxlab.terminal.nearest import suggestion

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
LATER: Schema = {"type": "string", "pattern": r"\$\{.+\}|^\?\?\?$"}
TYPES: dict[object, str] = {
    int: "integer",
    float: "number",
    bool: "boolean",
    NoneType: "null",
    str: "string",
    Path: "string",
}
BOUNDS: dict[type, str] = {
    Gt: "exclusiveMinimum",
    Ge: "minimum",
    Lt: "exclusiveMaximum",
    Le: "maximum",
}
LIST_BOUNDS: dict[type, str] = {MinLen: "minItems", MaxLen: "maxItems"}
# Keys of a config file that are Hydra's.
OF_HYDRA: Schema = {"defaults": {"type": "array"}, "hydra": {"type": "object"}}


def schema(group: str = "") -> None:
    """Prints the schema.

    Args:
        group: of which options are described; by default the whole config.
    """
    known = config_groups([conf_dir(), *plugins().values()])
    if group and group not in known:
        raise ConfigError(f"group={group}: no config group{suggestion(group, known)}")
    print_json(json_schema(group))


def json_schema(group: str = "") -> Schema:
    """The schema of files that set keys of the whole config, such as experiments, or of the options of a group."""
    builder = _Builder()
    signature = node_signature(TARGET, "")
    assert signature is not None
    if group in signature.keys:
        node = builder.value(signature.keys[group].hint, group)
    elif group:
        node = builder.component(group.replace("/", "."))
    else:
        node = builder.keys(signature, "")
        node["properties"] |= OF_HYDRA
    return {"$schema": DRAFT, **node, "definitions": builder.definitions}


class _Builder:
    """Collects the definitions of the components that a schema refers to, by target and path."""

    def __init__(self) -> None:
        self.definitions: Schema = {}

    def keys(self, signature: Signature, path: str) -> Schema:
        """A mapping with these keys, and no other."""
        properties = {}
        for name, parameter in signature.keys.items():
            schema = self.value(parameter.hint, join_key(path, name))
            if parameter.doc:
                schema["description"] = parameter.doc
            properties[name] = schema
        return {"type": "object", "properties": properties, "additionalProperties": False}

    def value(self, hint: object, path: str) -> Schema:
        options = [self._option(option, path) for option in alternatives(hint)]
        if {} in options:
            return {}
        return {"anyOf": [*options, LATER]}

    def _option(self, hint: object, path: str) -> Schema:
        """One member of a union."""
        kind, bounds = unwrap(hint)
        if literals(kind):
            return {"enum": list(literals(kind))}
        if isinstance(kind, Component) or get_origin(kind) is Callable:
            return self.component(path)
        if isinstance(kind, Record):
            signature = node_signature(kind.target, path)
            return {} if signature is None else self.keys(signature, path)
        if is_mapping(kind):
            values = self.value(get_args(kind)[1], join_key(path, "name"))
            return {"type": "object", "additionalProperties": values}
        if is_list(kind):
            items = self.value(get_args(kind)[0], join_key(path, "0"))
            return {"type": "array", "items": items, **_limits(bounds, LIST_BOUNDS)}
        if kind not in TYPES:
            return {}
        return {"type": TYPES[kind], **_limits(bounds, BOUNDS)}

    def component(self, path: str) -> Schema:
        """A mapping of the keys of any component that may stand at a path."""
        group = group_of(path)
        targets = [
            target
            for target, groups in sorted(allowed_targets().items())
            if group in groups or not (group or groups)
        ]
        place = group.replace("/", ".")
        for target in targets:
            name = f"{target}:{place}"
            signature = node_signature(target, place)
            if name not in self.definitions and signature is not None:
                self.definitions[name] = {}  # A component may hold one of its own kind.
                self.definitions[name] = self._node(target, signature, place)
        return {"anyOf": [{"$ref": f"#/definitions/{target}:{place}"} for target in targets]}

    def _node(self, target: str, signature: Signature, path: str) -> Schema:
        node = self.keys(signature, path)
        node["title"] = target.rpartition(".")[2]
        node["properties"] |= {
            "_target_": {"const": target},
            "_partial_": {"type": "boolean"},
            "defaults": OF_HYDRA["defaults"],
        }
        if signature.doc:
            node["description"] = signature.doc
        return node


def _limits(bounds: tuple[Any, ...], names: dict[type, str]) -> Schema:
    return {names[type(bound)]: astuple(bound)[0] for bound in bounds if type(bound) in names}
