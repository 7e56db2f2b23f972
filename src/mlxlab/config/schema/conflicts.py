"""Rules between keys, which no single signature can express."""

from collections.abc import Iterator
from math import inf
from typing import Any

from mlxlab.config.issues import ConfigIssue
from mlxlab.schema.dotted_keys import value_at

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
        message = "trainer.epochs, max_steps and max_tokens are all null: set one of them"
        yield ConfigIssue("trainer.epochs", message)
    yield from _model(tree)
    yield from _distillation(tree)
    yield from _growth(tree)


def _model(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """Sizes fit each other; those of a pretrained model are its own."""
    model = tree.get("model") or {}
    heads = _number(model, "num_heads", 1)
    size = _number(model, "hidden_size", 0)
    if size % heads and model.get("head_dim") is None:
        message = f"{heads} heads do not divide a hidden size of {size}"
        yield ConfigIssue("model.num_heads", message)
    groups = _number(model, "num_kv_heads", 1)
    if heads % groups:
        message = f"{groups} key-value heads do not divide {heads} heads"
        yield ConfigIssue("model.num_kv_heads", message)
    if model.get("pretrained") is not None and model.get("init_from"):
        message = "model.pretrained gives the initial weights too; set one of them"
        yield ConfigIssue("model.init_from", message)


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
        message = "expected the teachers of trainer.teachers; set both"
        yield ConfigIssue("trainer.distillation.teachers", message)
    if rounds == 0 and not members:
        message = "0 rounds make an ensemble of trainer.distillation.members, which is empty"
        yield ConfigIssue("trainer.distillation.rounds", message)
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
