"""Translates the scaling schedules of the GPT trainer into `callbacks.growth.operations`."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from mlxlab.cli.translate.flags import Values, as_text, count_of, number
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, parse_json, read_text, validate

Scalar = bool | int | float | str | None
OldValue = Scalar | list[Scalar]
Options = dict[str, object]  # of an operation here


class OldOperation(TypedDict):
    """An entry of a schedule of the old program."""

    name: str
    value: OldValue
    trigger_loss: float | None
    max_wait_iters: int | None
    reevaluate: bool
    desc: NotRequired[str]
    completed: NotRequired[bool]


MODULES = {  # names of the old program -> patterns of paths
    "attn": "layers.{}.attention",
    "mlp": "layers.{}.feed_forward",
    "ln_1": "layers.{}.attention_norm",
    "ln_2": "layers.{}.feed_forward_norm",
    "wte": "embedding",
    "wpe": "position_embedding",
    "ln_f": "norm",
    "lm_head": "head",
}
ALL_BUT_EMBEDDINGS = ["layers.*", "backbone.norm"]


@dataclass
class Settings:
    """What earlier operations of a schedule have set; factors and restarts depend on it."""

    learning_rate: float
    rows: int
    micro_batches: int
    warmup: int
    eval_every: int
    eval_batches: int
    processes: int = 1

    def batch(self) -> list[Options]:
        """The rows of an optimizer step, and how they are divided."""
        micro_batches = max(1, round(self.micro_batches / self.processes))
        rows = {"op": "set_batch_size", "batch_size": self.rows * micro_batches * self.processes}
        return [rows, {"op": "set_accumulation", "accumulate": micro_batches}]


def _set(field: str, cast: Callable[[float], float], *, factor: bool = False) -> "Change":
    def change(value: OldValue, settings: Settings) -> list[Options]:
        new = number(str(value), field) * (vars(settings)[field] if factor else 1)
        setattr(settings, field, cast(new))
        return _setting_operations(field, settings)

    return change


def _setting_operations(field: str, settings: Settings) -> list[Options]:
    """The operations here that a changed setting stands for; a new warm-up counts from the next restart."""
    match field:
        case "learning_rate":
            return [{"op": "set_learning_rate", field: settings.learning_rate}]
        case "eval_every" | "eval_batches":
            return [{"op": "set_evaluation", field: vars(settings)[field]}]
        case "warmup":
            return []
        case _:
            return settings.batch()


def _restart(_: OldValue, settings: Settings) -> list[Options]:
    return [{"op": "rewarm", "steps": settings.warmup, "restart": True}]


def _option(op: str, name: str) -> "Change":
    return lambda value, _: [{"op": op, name: value}]


def _grow_vocabulary(value: OldValue, _: Settings) -> list[Options]:
    noise = value[1] if isinstance(value, list) and len(value) == 2 else 0.01
    return [{"op": "grow_vocabulary", "noise": noise}]


def _lora(target: str) -> "Change":
    def change(value: OldValue, _: Settings) -> list[Options]:
        name, rank = value if isinstance(value, list) and len(value) == 2 else (target, value)
        if not number(str(rank), "rank"):
            return [{"op": "merge_lora"}]
        pattern = name if name in ("attention", "embedding") else _pattern(str(name))
        return [{"op": "set_lora", "rank": rank, "targets": [pattern]}]

    return change


def _pattern(name: str) -> str:
    """The path of a module from its old name, such as `attn.3`."""
    kind, _, layer = name.partition(".")
    if kind not in MODULES or (not layer and "{}" in MODULES[kind]):
        raise ConfigError(f"{name}: expected a layer such as attn.0{suggestion(kind, MODULES)}")
    return MODULES[kind].format(layer)


def _freeze(op: str) -> "Change":
    return lambda value, _: [{"op": op, "patterns": [_pattern(str(value))]}]


def _embeddings_only(value: OldValue, _: Settings) -> list[Options]:
    return [{"op": "freeze" if value else "unfreeze", "patterns": ALL_BUT_EMBEDDINGS}]


def _nothing(*_: object) -> list[Options]:
    return []


Change = Callable[[OldValue, Settings], list[Options]]
CHANGES: dict[str, Change] = {
    "set_lr": _set("learning_rate", float),
    "change_lr": _set("learning_rate", float, factor=True),
    "set_warmup_iters": _set("warmup", int),
    "change_warmup_iters": _set("warmup", int, factor=True),
    "reset_lr_schedule": _restart,
    "set_batch_size": _set("rows", int),
    "change_batch_size": _set("rows", int, factor=True),
    "set_grad_accum": _set("micro_batches", int),
    "change_grad_accum": _set("micro_batches", int, factor=True),
    "set_eval_iters": _set("eval_batches", int),
    "change_eval_iters": _set("eval_batches", int, factor=True),
    "set_eval_interval": _set("eval_every", int),
    "change_eval_interval": _set("eval_every", int, factor=True),
    "set_curriculum_alpha": _option("set_curriculum", "alpha"),
    "stack_layers": _option("stack", "map"),
    "widen_mlp": _option("widen", "feed_forward"),
    "resize_vocabulary": _grow_vocabulary,
    "set_attn_lora_rank": _lora("attention"),
    "set_embedding_lora_rank": _lora("embedding"),
    "set_layer_lora_rank": _lora(""),
    "merge_lora_weights": _option("merge_lora", "_"),
    "freeze_layer": _freeze("freeze"),
    "unfreeze_layer": _freeze("unfreeze"),
    "set_embedding_finetune_mode": _embeddings_only,
    "set_embedding_freeze_mode": _embeddings_only,
    "disable_vocab_remapping": _nothing,
    "decrease_attn_lora_scaling": _nothing,
    "decrease_embedding_lora_scaling": _nothing,
}
DROPPED = {  # why these make no operation
    "set_warmup_iters": "counts from the next reset_lr_schedule",
    "change_warmup_iters": "counts from the next reset_lr_schedule",
    "disable_vocab_remapping": "part of grow_vocabulary",
    "decrease_attn_lora_scaling": "the scale of an adapter is alpha / rank; set_lora changes it",
    "decrease_embedding_lora_scaling": "the scale of an adapter is alpha / rank; set_lora changes it",
}


def schedule_file(value: str, values: Values) -> list[str]:
    """The schedule in a JSON or YAML file."""
    if value == "None":
        return []
    from mlxlab.config.hydra.yaml_limits import parse_yaml

    path = Path(value)
    text = read_text(path, max_bytes=2**20)
    if text.lstrip().startswith("["):
        return _schedule(parse_json(text, list[object], value), value, values)
    return _schedule(parse_yaml(path, f"schedule:\n{text}").values["schedule"], value, values)


def inline_schedule(value: str, values: Values) -> list[str]:
    """The schedule of a configuration file or of the command line, a Python literal."""
    try:
        entries = ast.literal_eval(value[:100_000])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ConfigError("scaling_schedule: expected a list of operations") from None
    return _schedule(entries, "scaling_schedule", values) if entries else []


def _schedule(entries: object, origin: str, values: Values) -> list[str]:
    try:
        operations: list[OldOperation] = validate(entries, list[OldOperation])
    except (ShapeError, RecursionError) as error:
        raise DataError(f"{origin}: {error}") from None
    settings = Settings(
        number(values.get("learning-rate", "6e-4"), "learning_rate"),
        count_of(values, "batch-size", 12),
        count_of(values, "gradient-accumulation-steps", 40),
        int(number(values.get("warmup-iters", "2000"), "warmup_iters")),
        count_of(values, "eval-interval", 2000),
        count_of(values, "eval-iters", 200),
        count_of(values, "processes", 1),
    )
    lines: list[str] = []
    overrides: list[str] = []
    for entry in operations:
        if entry["name"] not in CHANGES:
            raise ConfigError(
                f"{origin}: {entry['name']}: unknown operation{suggestion(entry['name'], CHANGES)}"
            )
        changes = CHANGES[entry["name"]](entry["value"], settings)
        lines += list(_operations(entry, changes, len(lines)))
        if not changes:
            overrides.append(f"# {origin}: {entry['name']}: {DROPPED[entry['name']]}")
        if entry["name"] == "set_curriculum_alpha":
            overrides.append("data/order=curriculum")
    return [*overrides, f"callbacks.growth.operations=[{', '.join(lines)}]"]


def _operations(entry: OldOperation, changes: list[Options], start: int) -> Iterator[str]:
    """The operations that an old one stands for; those after the first follow at once."""
    when: Options = {}
    if entry["trigger_loss"] is not None:
        when["metric_below"] = entry["trigger_loss"]
    if entry["max_wait_iters"] is not None or not when:
        when["or_steps"] = max(1, entry["max_wait_iters"] or 1)
    for number_, change in enumerate(changes):
        options = {"id": f"{entry['name']}_{start + number_ + 1}"} | {
            k: v for k, v in change.items() if k != "_"
        }
        options["when"] = when if number_ == 0 else when | {"or_steps": 1}
        if entry["reevaluate"] and number_ == len(changes) - 1:
            options["then"] = "evaluate"
        yield _hydra(options)


def _hydra(value: object) -> str:
    """A value in Hydra's syntax of overrides."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {_hydra(item)}" for key, item in value.items()) + "}"
        case list():
            return f"[{', '.join(map(_hydra, value))}]"
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case str():
            return as_text(value)
    return str(value)
