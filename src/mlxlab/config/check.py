"""Resolves a config and checks it, before anything is imported or created: against the signatures of its targets, and by
rules between keys, which no single signature can express.
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, errors

from mlxlab.config.instantiate import why_disallowed
from mlxlab.config.issues import MISSING, UNRESOLVED, ConfigIssue, format_issues
from mlxlab.config.paths import project_root
from mlxlab.config.schema.root import TARGET
from mlxlab.config.schema.validate import Checker
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.files.untrusted import read_text
from mlxlab.schema.dotted_keys import join_key, value_at, walk
from mlxlab.terminal.nearest import did_you_mean, nearest
from mlxlab.terminal.redact import has_credentials, why_refused
from mlxlab.terminal.wording import one_line, shown

# A config is printed, stored and tracked, so only variables that never hold a secret can be read in one.
_READABLE = re.compile(r"MLXLAB_\w+|HOME|USER|TMPDIR|HOSTNAME|SCRATCH|SLURM_(JOB|ARRAY)_\w+")
_DISTILLATION_LOSS = "mlxlab.distillation.loss.DistillationLoss"
_NO_CLOUD = "mlxlab.run.storage.NoCloud"
_GROWTH = "callbacks.growth.operations"

# Two keys, the first of which may not be above the other, and a message.
_RULES = (
    (
        "trainer.schedule.warmup",
        "trainer.max_steps",
        "a warm-up of {} steps is longer than the run of {}",
    ),
    (
        "trainer.step.accumulate",
        "data.batch_size",
        "{} micro-batches of a batch of {} rows",
    ),
)


def check(config: DictConfig | dict[str, Any]) -> None:
    """Raises ConfigError with the `config_issues` of a config, one line each, at most ten."""
    issues = config_issues(config)
    if issues:
        raise ConfigError(format_issues(issues))


def config_issues(config: DictConfig | dict[str, Any]) -> list[ConfigIssue]:
    """All unknown, missing and invalid values of a config, in the order of the keys; its `hydra` node is Hydra's.

    The path of an issue is `key=value`.

    Args:
        config: composed, or a resolved `dict`, in which `${x}` is text.

    Raises:
        NotAllowedError: a `_target_` may not be built, or a URL holds credentials.
    """
    raw: Any = config
    tree: Any = config
    issues: list[ConfigIssue] = []
    if isinstance(config, DictConfig):
        raw = OmegaConf.to_container(config, resolve=False)
        raw.pop("hydra", None)
        tree, issues = resolve(config)
    refused = list(_find_refused(raw)) or list(_find_refused(tree))
    if refused:
        raise NotAllowedError(format_issues(labelled(refused, raw)))
    issues += Checker(tree, raw).check_node(tree, TARGET)
    return labelled(issues or conflicts(tree), raw)


def labelled(issues: Iterable[ConfigIssue], raw: dict[str, Any]) -> list[ConfigIssue]:
    """Issues with the values of their keys in a config whose interpolations are not resolved."""
    result = []
    for path, message in issues:
        value = value_at(raw, path)
        label = path
        if value is not None and not isinstance(value, dict | list):
            label = f"{path}={shown(value)}"
        result.append(ConfigIssue(label, message))
    return result


def _find_refused(tree: object) -> Iterator[ConfigIssue]:
    """Targets that may not be built; texts with credentials, for a config is printed, stored and tracked."""
    for path, value in walk(tree):
        if isinstance(value, dict) and "_target_" in value:
            why = why_disallowed(value["_target_"])
            if why:
                yield ConfigIssue(join_key(path, "_target_"), why)
        for text in (path, value):
            if isinstance(text, str) and has_credentials(text):
                yield ConfigIssue(path, why_refused(text))


def read_stored_config(path: Path) -> dict[str, Any]:
    """The config in a YAML file of a run folder. Anyone may have written it: it is checked, and nothing is resolved.

    Raises:
        InputNotFoundError: there is no such file.
        NotAllowedError: a `_target_` in it may not be built.
        DataError: it is too large, nested too deep, not YAML, or not a config of this version.
    """
    from mlxlab.files.yaml_file import MAX_BYTES, parse_yaml

    try:
        return check_stored_config(
            parse_yaml(path, read_text(path, max_bytes=MAX_BYTES)).values, str(path)
        )
    except ConfigError as error:
        raise DataError(str(error)) from None


def check_stored_config(config: object, name: str) -> dict[str, Any]:
    """A decoded config that was read from `name`, valid in every key; raises NotAllowedError or DataError."""
    if not isinstance(config, dict):
        raise DataError(f"{name}: expected a mapping of keys to values")
    try:
        check(config)
    except (ConfigError, NotAllowedError) as error:
        first, *others = str(error).splitlines()
        message = f"{name}: {first}"
        if others:
            message += f" (and {len(others)} more)"
        if isinstance(error, NotAllowedError):
            raise NotAllowedError(message) from None
        raise DataError(message) from None
    return config


def check_stored_model(node: object, config: dict[str, Any], name: str) -> dict[str, Any]:
    """A decoded `model` node that was read from `name`, valid in its config; raises as `check_stored_config`."""
    return check_stored_config({**config, "model": node}, name)["model"]


def register_resolvers() -> None:
    """Makes `${name:...}` known, in addition to the resolvers of OmegaConf and Hydra."""
    OmegaConf.register_new_resolver("oc.env", read_environment, replace=True)
    OmegaConf.register_new_resolver(
        "short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver(
        "if_set", lambda value, then, other: other if value is None else then, replace=True
    )
    OmegaConf.register_new_resolver("project", lambda: str(project_root()), replace=True)


def read_environment(name: str, *default: object) -> object:
    """The resolver behind `${oc.env:NAME}` and `${oc.env:NAME,default}`."""
    if not _READABLE.fullmatch(name):
        raise ConfigError(
            f"the environment variable {name} cannot be read in a config, which is printed and tracked; "
            f"name it MLXLAB_{name}"
        )
    value = os.environ.get(name)
    if value is None:
        if not default:
            raise ConfigError(f"the environment variable {name} is not set")
        return None if default[0] is None else str(default[0])
    if has_credentials(value):
        raise ConfigError(
            f"the environment variable {name} holds a URL with credentials; a config is tracked"
        )
    return value


def resolve(config: DictConfig) -> tuple[dict[str, object], list[ConfigIssue]]:
    """(values, issues). A missing value stays `???`, an interpolation with an error becomes `UNRESOLVED`."""
    issues = []

    def resolved(parent: DictConfig | ListConfig, key: Any, path: str) -> object:
        if OmegaConf.is_missing(parent, key):
            return MISSING
        try:
            value = parent[key]
            if isinstance(value, ListConfig):
                return [resolved(value, each, join_key(path, each)) for each in range(len(value))]
            if isinstance(value, DictConfig):
                return {name: resolved(value, name, join_key(path, name)) for name in value}
        except (errors.OmegaConfBaseException, RecursionError) as error:
            issues.append(_explain(error, config, path))
            return UNRESOLVED
        return value

    keys = [key for key in config if key != "hydra"]
    return {str(key): resolved(config, key, join_key("", key)) for key in keys}, issues


def _explain(error: Exception, config: DictConfig, path: str) -> ConfigIssue:
    first = one_line(str(error).partition("\n    full_key")[0])
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return ConfigIssue(path, "an interpolation in a circle")
    if isinstance(error, errors.InterpolationKeyError):
        name = first.split("'")[1]
        keys = [key for key, _ in walk(OmegaConf.to_container(config, resolve=False))]
        near = did_you_mean(nearest(name, keys))
        return ConfigIssue(path, f"${{{name}}}: there is no such key{near}")
    return ConfigIssue(path, first.rpartition("while resolving interpolation: ")[2])


def conflicts(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """Issues of rules between keys of a config whose values are valid; a rule whose keys are missing is skipped."""
    for key, other, message in _RULES:
        value = _number(tree, key, -inf)
        limit = _number(tree, other, inf)
        if value > limit:
            yield ConfigIssue(key, message.format(value, limit))
    trainer = tree.get("trainer") or {}
    lengths = [trainer.get(key, "") for key in ("epochs", "max_steps", "max_tokens")]
    if lengths == [None, None, None]:
        yield ConfigIssue(
            "trainer.epochs",
            "trainer.epochs, max_steps and max_tokens are all null: set one of them",
        )
    yield from _model(tree)
    yield from _distillation(tree)
    yield from _growth(tree)


def _model(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """Sizes fit each other; those of a pretrained model are its own."""
    model = tree.get("model") or {}
    heads = _number(model, "num_heads", 1)
    size = _number(model, "hidden_size", 0)
    if size % heads and model.get("head_dim") is None:
        yield ConfigIssue("model.num_heads", f"{heads} heads do not divide a hidden size of {size}")
    groups = _number(model, "num_kv_heads", 1)
    if heads % groups:
        yield ConfigIssue(
            "model.num_kv_heads", f"{groups} key-value heads do not divide {heads} heads"
        )
    if model.get("pretrained") is not None and model.get("init_from"):
        yield ConfigIssue(
            "model.init_from", "model.pretrained gives the initial weights too; set one of them"
        )


def _distillation(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """The loss and `teachers` need `trainer=distill`; a run of rounds consists of others."""
    options = value_at(tree, "trainer.distillation")
    teachers = value_at(tree, "trainer.teachers")
    if not isinstance(options, dict):
        if _DISTILLATION_LOSS in str(value_at(tree, "trainer.loss")):
            yield ConfigIssue("trainer.loss", "distillation needs the teachers of trainer=distill")
        if teachers:
            yield ConfigIssue("trainer.teachers", "expected trainer=distill")
        return
    rounds = options["rounds"]
    members = options["members"]
    if teachers != options["teachers"]:
        # An interpolation, but in a saved config both are values: a resume could change only one of them.
        yield ConfigIssue(
            "trainer.distillation.teachers", "expected the teachers of trainer.teachers; set both"
        )
    if rounds == 0 and not members:
        yield ConfigIssue(
            "trainer.distillation.rounds",
            "0 rounds make an ensemble of trainer.distillation.members, which is empty",
        )
    if rounds == 1 and not members:
        if teachers is None:
            yield ConfigIssue("trainer.teachers", "missing; expected models to learn from, or []")
    elif value_at(tree, "cloud._target_") not in (None, _NO_CLOUD):
        yield ConfigIssue("cloud", "expected cloud=none in a run of several rounds")


def _growth(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """Operations have different ids, and wait for something."""
    operations: Any = value_at(tree, _GROWTH) or []
    ids = [operation["id"] for operation in operations]
    if len(set(ids)) < len(ids):
        yield ConfigIssue(_GROWTH, f"expected another id for each operation, got {', '.join(ids)}")
    is_micro_batched = value_at(tree, "trainer.step.accumulate") is not None
    for number, operation in enumerate(operations):
        path = f"{_GROWTH}.{number}"
        if not operation["when"]:
            yield ConfigIssue(f"{path}.when", "expected metric_below, metric_above or or_steps")
        if operation["op"] == "set_accumulation" and not is_micro_batched:
            yield ConfigIssue(f"{path}.op", "set_accumulation needs trainer=optimized")


def _number(tree: dict[str, Any], path: str, default: float) -> float:
    value = value_at(tree, path)
    if isinstance(value, int | float):
        return value
    return default
