"""Rules between keys, which no single signature can express."""

from collections.abc import Callable, Iterator
from typing import Any

from mlxlab.config.findings import ConfigIssue

_DISTILLATION_LOSS = "mlxlab.distillation.loss.DistillationLoss"


def broken(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """Issues for the rules that do not hold. A rule whose keys are missing or not numbers is skipped."""
    for path, other, rule in _RULES:
        values = _at(tree, path), _at(tree, other)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            message = rule(*values)
            if message:
                yield ConfigIssue(path, message)
    yield from _endless(tree)
    yield from _no_store(_at(tree, "tracking.uri"))
    yield from _distillation(tree)
    yield from _positions(tree)
    if _at(tree, "data.folds") is None and _at(tree, "data.fold"):
        yield ConfigIssue("data.fold", f"fold {_at(tree, 'data.fold')} of none; set data.folds too")


def _no_store(uri: Any) -> Iterator[ConfigIssue]:
    """Refuses a tracking address without an MLflow store; SQLAlchemy's dialects may name a driver."""
    if not isinstance(uri, str):
        return
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in _STORES:
        expected = "sqlite:///<file>, http(s)://<server>, or another address of MLflow"
        yield ConfigIssue("tracking.uri", f"expected {expected}, got {uri or 'no address'}")


def _endless(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """A run must end, and a decaying schedule must know its length."""
    trainer = tree.get("trainer")
    lengths = ("epochs", "max_steps", "max_tokens")
    if not isinstance(trainer, dict) or any(key not in trainer for key in lengths):
        return
    epochs, steps, tokens = (trainer[key] for key in lengths)
    if epochs is None and steps is None and tokens is None:
        yield ConfigIssue("trainer.epochs", "so are max_steps and max_tokens: the run has no end; set one of them")
    schedule = str(_at(tree, "trainer.schedule._target_")).rsplit(".", 1)[-1]
    if epochs is not None or steps is not None or tokens is None:
        return
    if schedule in ("cosine", "linear"):
        yield ConfigIssue(
            "trainer.schedule", f"{schedule} needs the length of the run; set trainer.max_steps or use wsd"
        )
    elif 0 < (_at(tree, "trainer.schedule.warmup") or 0) < 1:
        yield ConfigIssue(
            "trainer.schedule.warmup", "a fraction of a run of unknown length; expected a number of steps"
        )


def _distillation(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """The loss needs the teachers of `trainer=distill`; a run without rounds needs members."""
    options = _at(tree, "trainer.distillation")
    if options is None and _DISTILLATION_LOSS in str(_at(tree, "trainer.loss")):
        yield ConfigIssue("trainer.loss", "distillation needs the teachers of trainer=distill")
    lists = _at(tree, "trainer.teachers"), _at(tree, "trainer.distillation.teachers")
    if all(isinstance(teachers, list) for teachers in lists) and lists[0] != lists[1]:
        # An interpolation, but in a saved config both are values: a resume could change only one of them.
        yield ConfigIssue("trainer.distillation.teachers", "expected the teachers of trainer.teachers; set both")
    if isinstance(options, dict) and options.get("rounds") == 0 and not options.get("members"):
        yield ConfigIssue(
            "trainer.distillation.rounds", "0 rounds make an ensemble of trainer.distillation.members, which is empty"
        )


def _positions(tree: dict[str, Any]) -> Iterator[ConfigIssue]:
    """Rows must fit the learned positions; rotary ones need an even head dimension. Pretrained models are skipped."""
    model, seq_len = tree.get("model"), _at(tree, "data.seq_len")
    if not isinstance(model, dict) or model.get("pretrained") is not None:
        return
    limit, kind = model.get("max_position_embeddings"), model.get("position_embedding")
    if kind == "learned" and isinstance(limit, int) and isinstance(seq_len, int) and seq_len > limit:
        yield ConfigIssue(
            "data.seq_len",
            f"rows of up to {seq_len} tokens, but the model has positions for {limit} (model.max_position_embeddings)",
        )
    size, heads = model.get("hidden_size"), model.get("num_heads")
    if kind != "rope" or not isinstance(size, int) or not isinstance(heads, int) or heads < 1 or size % heads:
        return
    if (head_dim := size // heads) % 2:
        message = f"rotary positions need an even head dimension, got {size} / {heads} = {head_dim}"
        yield ConfigIssue("model.num_heads", message)


def _divides(heads: Any, hidden_size: Any) -> str | None:
    return (
        None if heads < 1 or hidden_size % heads == 0 else f"{heads} heads do not divide a hidden size of {hidden_size}"
    )


def _divides_heads(groups: Any, heads: Any) -> str | None:
    return None if groups < 1 or heads % groups == 0 else f"{groups} key-value heads do not divide {heads} heads"


def _fits_run(warmup: Any, steps: Any) -> str | None:
    return f"a warm-up of {warmup} steps is longer than the run of {steps}" if warmup >= 1 and warmup > steps else None


def _within(fold: Any, folds: Any) -> str | None:
    return f"expected a fold below {folds} (they count from 0), got {fold}" if fold >= folds else None


def _enough(folds: Any, _: Any) -> str | None:
    return None if folds >= 2 else f"expected at least 2 folds, got {folds}"


_STORES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks", "uc", "file")

Rule = Callable[[Any, Any], str | None]

_RULES: tuple[tuple[str, str, Rule], ...] = (
    ("model.num_heads", "model.hidden_size", _divides),
    ("model.num_kv_heads", "model.num_heads", _divides_heads),
    ("trainer.schedule.warmup", "trainer.max_steps", _fits_run),
    ("data.fold", "data.folds", _within),
    ("data.folds", "data.folds", _enough),
)


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
