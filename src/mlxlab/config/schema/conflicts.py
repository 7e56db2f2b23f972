"""Rules between keys, which no single signature can express."""

import operator
from collections.abc import Callable, Iterator

from mlxlab.config.issues import ConfigIssue, value_at

_DISTILLATION_LOSS = "mlxlab.distillation.loss.DistillationLoss"
_NO_CLOUD = "mlxlab.experiment.storage.NoCloud"
_DECAYING = ("mlxlab.training.optim.schedules.cosine", "mlxlab.training.optim.schedules.linear")
_GROWTH = "callbacks.growth.operations"
_LANGUAGE_MODELLING = (
    "mlxlab.data.text.",
    "mlxlab.data.chat.",
)  # data whose targets are tokens
_MLX_LM = "mlxlab.models.zoo.mlx_lm.MlxLm"
_RESIZING = ("stack", "widen", "add_heads", "grow_width", "resize_vocabulary")
_NOT_RESIZING = ("freeze", "unfreeze", "set_lora", "merge_lora", "an operation on settings")
_STORES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_WARMUP = "a warm-up of {} steps is longer than the run of {}"


def _does_not_divide(divisor: float, number: float) -> bool:
    return divisor >= 1 and number % divisor != 0


_RULES: tuple[
    tuple[str, str, Callable[[float, float], bool], str], ...
] = (  # two keys, a conflict of them, a message
    (
        "model.num_heads",
        "model.hidden_size",
        _does_not_divide,
        "{} heads do not divide a hidden size of {}",
    ),
    (
        "model.num_kv_heads",
        "model.num_heads",
        _does_not_divide,
        "{} key-value heads do not divide {} heads",
    ),
    (
        "trainer.schedule.warmup",
        "trainer.max_steps",
        lambda warmup, steps: warmup > max(1, steps),
        _WARMUP,
    ),
    (
        "trainer.step.accumulate",
        "data.batch_size",
        operator.gt,
        "{} micro-batches of a batch of {} rows",
    ),
    (
        "data.fold",
        "data.folds",
        operator.ge,
        "expected a fold below {1} (they count from 0), got {0}",
    ),
    ("data.folds", "data.folds", lambda folds, _: folds < 2, "expected at least 2 folds, got {}"),
)


def conflicts(tree: dict[str, object]) -> Iterator[ConfigIssue]:
    """Issues of rules between keys, which no single signature can express; one whose keys are missing is skipped."""
    for key, other, conflict, message in _RULES:
        value, limit = _number(tree, key), _number(tree, other)
        if key == "model.num_heads" and value_at(tree, "model.head_dim") is not None:
            continue
        if value is not None and limit is not None and conflict(value, limit):
            yield ConfigIssue(key, message.format(value, limit))
    yield from _run_length(tree)
    yield from _distillation(tree)
    yield from _positions(tree)
    if value_at(tree, "model.init_from") and value_at(tree, "model.pretrained"):
        yield ConfigIssue(
            "model.init_from", "model.pretrained gives the initial weights too; set one of them"
        )
    yield from _growth(tree)
    yield from _mlx_lm(tree)
    yield from _cloud(tree)
    uri = value_at(tree, "tracking.uri")
    if (
        isinstance(uri, str) and uri.partition(":")[0].partition("+")[0] not in _STORES
    ):  # SQLAlchemy: dialect+driver
        expected = "sqlite:///<file>, http(s)://<server>, or another address of MLflow"
        yield ConfigIssue("tracking.uri", f"expected {expected}, got {uri or 'no address'}")
    if value_at(tree, "data.folds") is None and value_at(tree, "data.fold"):
        yield ConfigIssue(
            "data.fold", f"fold {value_at(tree, 'data.fold')} of none; set data.folds too"
        )


def _run_length(tree: dict[str, object]) -> Iterator[ConfigIssue]:
    """A run must end, and a decaying schedule must know its length."""
    trainer = tree.get("trainer")
    if not isinstance(trainer, dict):
        return
    epochs, steps, tokens = (trainer.get(key, ...) for key in ("epochs", "max_steps", "max_tokens"))
    if epochs is not None or steps is not None:
        return
    schedule = str(value_at(tree, "trainer.schedule._target_"))
    if tokens is None:
        yield ConfigIssue(
            "trainer.epochs",
            "trainer.epochs, max_steps and max_tokens are all null: set one of them",
        )
    elif schedule in _DECAYING:
        message = f"{schedule.rpartition('.')[2]} needs the length of the run; set trainer.max_steps or use wsd"
        yield ConfigIssue("trainer.schedule", message)
    elif 0 < (_number(tree, "trainer.schedule.warmup") or 0) < 1:
        yield ConfigIssue(
            "trainer.schedule.warmup", "a fraction of a run of unknown length; expected whole steps"
        )


def _distillation(tree: dict[str, object]) -> Iterator[ConfigIssue]:
    """The loss and `teachers` need `trainer=distill`; a run without rounds needs members."""
    options, teachers = value_at(tree, "trainer.distillation"), value_at(tree, "trainer.teachers")
    if options is None and _DISTILLATION_LOSS in str(value_at(tree, "trainer.loss")):
        yield ConfigIssue("trainer.loss", "distillation needs the teachers of trainer=distill")
    if options is None and teachers:
        yield ConfigIssue("trainer.teachers", "expected trainer=distill")
    if not isinstance(options, dict):
        return
    if (
        isinstance(teachers, list)
        and isinstance(options.get("teachers"), list)
        and teachers != options["teachers"]
    ):
        # An interpolation, but in a saved config both are values: a resume could change only one of them.
        yield ConfigIssue(
            "trainer.distillation.teachers", "expected the teachers of trainer.teachers; set both"
        )
    if options.get("rounds") == 0 and not options.get("members"):
        message = "0 rounds make an ensemble of trainer.distillation.members, which is empty"
        yield ConfigIssue("trainer.distillation.rounds", message)


def _cloud(tree: dict[str, object]) -> Iterator[ConfigIssue]:
    """Copies are of one run; a run of several rounds consists of others."""
    options, target = value_at(tree, "trainer.distillation"), value_at(tree, "cloud._target_")
    has_rounds = isinstance(options, dict) and (
        options.get("rounds") != 1 or options.get("members")
    )
    if has_rounds and target not in (None, _NO_CLOUD):
        yield ConfigIssue("cloud", "expected cloud=none in a run of several rounds")


def _positions(tree: dict[str, object]) -> Iterator[ConfigIssue]:
    """Rows must fit the learned positions; rotary ones need an even head dimension. Pretrained models are skipped."""
    if value_at(tree, "model.pretrained") is not None:
        return
    kind, rows = value_at(tree, "model.position_embedding"), _number(tree, "data.seq_len")
    limit = _number(tree, "model.max_position_embeddings")
    if kind == "learned" and rows is not None and limit is not None and rows > limit:
        positions = f"the model has positions for {limit} (model.max_position_embeddings)"
        yield ConfigIssue("data.seq_len", f"rows of up to {rows} tokens, but {positions}")
    size, heads = _number(tree, "model.hidden_size"), _number(tree, "model.num_heads")
    if value_at(tree, "model.head_dim") is not None:
        return
    if kind == "rope" and size and heads and size % heads == 0 and (size // heads) % 2:
        message = (
            f"rotary positions need an even head dimension, got {size} / {heads} = {size // heads}"
        )
        yield ConfigIssue("model.num_heads", message)


def _growth(tree: dict[str, object]) -> Iterator[ConfigIssue]:
    """Operations have different ids, wait for something, and change only settings that there are."""
    operations, seen = value_at(tree, f"{_GROWTH}"), set[object]()
    for number, operation in enumerate(operations if isinstance(operations, list) else []):
        path, name, op = f"{_GROWTH}.{number}", operation["id"], operation["op"]
        if name in seen:
            yield ConfigIssue(f"{path}.id", f"{name} is the id of an operation before")
        seen.add(name)
        if not operation["when"]:
            yield ConfigIssue(f"{path}.when", "expected metric_below, metric_above or or_steps")
        if op == "set_accumulation" and value_at(tree, "trainer.step.accumulate") is None:
            yield ConfigIssue(f"{path}.op", "set_accumulation needs trainer=optimized")
        if (
            op == "set_evaluation"
            and operation.get("eval_every") is operation.get("eval_batches") is None
        ):
            yield ConfigIssue(f"{path}.op", "set_evaluation needs eval_every or eval_batches")
        if op == "resize_vocabulary":
            yield from _vocabulary(tree, f"{path}.op")
        if op == "set_batch_size" and value_at(tree, "callbacks.adaptive_batch.max") is not None:
            yield ConfigIssue(f"{path}.op", "callbacks.adaptive_batch sets the batch size already")


def _mlx_lm(tree: dict[str, object]) -> Iterator[ConfigIssue]:
    """The sizes and the tokens of an architecture of mlx-lm stay as they are."""
    if value_at(tree, "model._target_") != _MLX_LM:
        return
    operations = value_at(tree, _GROWTH)
    for number, operation in enumerate(operations if isinstance(operations, list) else []):
        if operation["op"] in _RESIZING:
            message = f"{operation['op']} cannot change a model of model=mlx_lm; expected {', '.join(_NOT_RESIZING)}"
            yield ConfigIssue(f"{_GROWTH}.{number}.op", message)


def _vocabulary(tree: dict[str, object], path: str) -> Iterator[ConfigIssue]:
    """The teachers of a language model keep their vocabulary.

    Data of a plugin are asked once they are read, by `Session.new_model`.
    """
    if not str(value_at(tree, "data._target_")).startswith(_LANGUAGE_MODELLING):
        return
    title = "resize_vocabulary: the teachers of"
    if value_at(tree, "trainer.teachers"):
        yield ConfigIssue(path, f"{title} trainer.teachers would keep the vocabulary before it")
    elif (_number(tree, "trainer.distillation.rounds") or 0) > 1:
        yield ConfigIssue(path, f"{title} later rounds would have the vocabulary after it")


def _number(tree: dict[str, object], path: str) -> int | float | None:
    value = value_at(tree, path)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
