"""Teachers found and loaded: runs, checkpoints, ensembles, models of the store, pretrained models of others."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.data.batch import Task
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.distillation.cache import TeacherCache
from mlxlab.distillation.teachers import Teachers
from mlxlab.errors import ConfigError, InputNotFoundError, NotAllowedError
from mlxlab.inference.ensemble import config_dir_of, find_run_dir
from mlxlab.inference.restore import restore_from
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.tracking.mlflow.download import download_model, is_mlflow_uri


class LoadedTeacher(NamedTuple):
    """A teacher, as it was found."""

    name: str
    model: nn.Module
    task: Task
    tokenizer: Tokenizer
    held_out: str  # fingerprint of what it was validated on; "" if it is not known


def tokenizer_folder(cfg: Any, cache: Path) -> Path | None:
    """Whose tokenizer a student takes: that of its pretrained weights, its first teacher or the first student."""
    if cfg["model"]["pretrained"] is not None:
        from mlxlab.models.pretrained.load import tokenizer_dir

        return tokenizer_dir(cfg["model"]["pretrained"], cache)
    trainer = cfg["trainer"]
    names = [*trainer.get("teachers", []), *trainer.get("members", [])]
    if not names or trainer["vocabulary"] != "same":
        return None
    run = find_run_dir(_path(names[0], cfg, cache))
    return config_dir_of(run) if run is not None else _pretrained_folder(names[0], cache)


def trainer_for(cfg: Any, data: Any, cache: Path) -> tuple[Any, Teachers, list[str]]:
    """The trainer of a config, the teachers it names, and what the user should know about them."""
    taught_by, lines = teachers_for(cfg, data, cache)
    return instantiate(cfg["trainer"], class_counts=data.class_counts, taught_by=taught_by), taught_by, lines


def first_weights(cfg: Any, model: nn.Module) -> None:
    """Where `round_init=previous` says so, the weights of the student before."""
    trainer = cfg["trainer"]
    if trainer.get("members") and trainer["round_init"] == "previous":
        model.update(restore_from(Path(trainer["members"][-1])).model.parameters())


def teachers_for(cfg: Any, data: Any, cache: Path) -> tuple[Teachers, list[str]]:
    """The teachers of a config, and what the user should know about them.

    Args:
        cache: folder under which answers may be kept.

    Raises:
        InputNotFoundError, CheckpointUnavailableError, DataError: one is not there, or damaged.
        NotAllowedError: one has other classes or another vocabulary than the student.
        ConfigError: weights that do not fit, a setting of the cache.
    """
    trainer = cfg["trainer"]
    names = list(trainer.get("teachers", []))
    if not names and not trainer.get("members"):
        return Teachers(), []
    given = [load_teacher(name, cfg, data, cache) for name in names]
    role = trainer["role"]
    students = [load_teacher(name, cfg, data, cache) for name in trainer["members"]] if role != "independent" else []
    weights = trainer["teacher_weights"]
    if weights is not None and len(weights) != len(names):
        raise ConfigError(f"trainer.teacher_weights: {len(weights)} for {len(names)} teachers")
    lines = [line for teacher in given for line in _described(teacher, data)]
    teaching = [*given, *(students if role == "teacher" else [])]
    if role == "teacher" and students and weights is not None:
        weights = [*weights, *[sum(weights) / len(weights)] * len(students)]
    ensemble = Ensemble([_align_vocabulary(one, cfg, data) for one in teaching], weights, trainer["combine"])
    beneath = Ensemble([_align_vocabulary(one, cfg, data) for one in students] if role == "residual" else [])
    for member in (*ensemble.members, *beneath.members):
        member.set_dtype(getattr(mx, trainer["teacher_dtype"]))
    mx.eval(ensemble.parameters(), beneath.parameters())
    kept = _cache(cfg, data, ensemble, cache) if ensemble and trainer["teacher_cache"] is not None else None
    hashes = {one.name: Ensemble([one.model]).hash() for one in (*given, *students)}
    return Teachers(ensemble, beneath, kept, hashes), lines


def load_teacher(name: str, cfg: Any, data: Any, cache: Path) -> LoadedTeacher:
    """A teacher by its name, in evaluation mode."""
    path = _path(name, cfg, cache)
    if find_run_dir(path) is None:
        return _pretrained(name, data, cache)
    restored = restore_from(path)
    facts = restored.checkpoint.state.get("facts", {})
    return LoadedTeacher(
        name, restored.model, restored.encoder.task, restored.encoder.tokenizer, facts.get("held_out", "")
    )


def _path(name: str, cfg: Any, cache: Path) -> Path:
    """Where it is: a model of the store is fetched first."""
    if not is_mlflow_uri(name):
        return Path(name).expanduser()
    return download_model(name, cfg["tracking"].get("uri"), project_root(), cache)


def _pretrained(name: str, data: Any, cache: Path) -> LoadedTeacher:
    """A language model of others."""
    from mlxlab.models.build import build_pretrained_model
    from mlxlab.models.pretrained.load import resolve

    tokenizer = load_tokenizer(_pretrained_folder(name, cache))
    if data.task.kind != "language_modelling":
        raise NotAllowedError(
            f"trainer.teachers: {name} is a language model, the task is to tell {data.task.num_classes} classes"
        )
    model = build_pretrained_model(resolve(name), tokenizer.vocab_size)
    task = Task(data.task.kind, tokenizer.vocab_size, masked=not model.backbone.causal)
    return LoadedTeacher(name, model, task, tokenizer, "")


def _pretrained_folder(name: str, cache: Path) -> Path:
    from mlxlab.models.pretrained.load import tokenizer_dir

    try:
        return tokenizer_dir(name, cache)
    except InputNotFoundError:
        raise InputNotFoundError(
            f"trainer.teachers: {name}: no run folder, checkpoint or folder of a pretrained model, and no hub id"
        ) from None


def _align_vocabulary(found: LoadedTeacher, cfg: Any, data: Any) -> FrozenModel:
    """The teacher in the student's words, or a refusal that says what differs."""
    mine, theirs = data.task, found.task
    title = f"trainer.teachers: {found.name}"
    if (mine.kind, mine.masked) != (theirs.kind, theirs.masked):
        kinds = {True: "guesses hidden tokens", False: "guesses the next token"}
        words = [one.kind if one.kind == "classification" else kinds[one.masked] for one in (theirs, mine)]
        raise NotAllowedError(f"{title}: learned another task ({words[0]}) than the student ({words[1]})")
    _check_positions(found, cfg, title)
    same_words = found.tokenizer.fingerprint == data.tokenizer.fingerprint
    if mine.kind == "classification":
        if not same_words:
            raise NotAllowedError(
                f"{title}: reads with another tokenizer ({_said(found.tokenizer)}, the student {_said(data.tokenizer)})"
            )
        table = None if theirs.labels == mine.labels else _table(theirs.labels, mine.labels, cfg, title, "classes")
        return FrozenModel(found.model, table)
    if same_words:
        return FrozenModel(found.model)
    table = _table(_words(found.tokenizer), _words(data.tokenizer), cfg, title, "tokens")
    return FrozenModel(found.model, table, tokens=True)


def _table(theirs: Sequence[str], mine: Sequence[str], cfg: Any, title: str, what: str) -> np.ndarray:
    """For each of the student's classes or tokens the teacher's number of the same name."""
    if cfg["trainer"]["vocabulary"] != "subset":
        raise NotAllowedError(
            f"{title}: has other {what} ({len(theirs)}) than the student ({len(mine)});"
            " trainer.vocabulary=subset maps them by name where the teacher knows all of the student's"
        )
    number = {name: place for place, name in enumerate(theirs)}
    lacking = [name for name in mine if name not in number]
    if lacking:
        raise NotAllowedError(
            f"{title}: does not know {len(lacking)} of the student's {len(mine)} {what}, as {lacking[0]!r}"
        )
    return np.array([number[name] for name in mine], np.int32)


def _check_positions(found: LoadedTeacher, cfg: Any, title: str) -> None:
    """MLX has no bounds checks."""
    from mlxlab.models.model import Model

    longest = cfg["data"].get("seq_len") or cfg["data"].get("max_length") or 0
    limit = found.model.backbone.position_limit if isinstance(found.model, Model) else None
    if limit is not None and longest > limit:
        raise ConfigError(f"{title}: has positions for {limit} tokens, the data has up to {longest}")


def _described(found: LoadedTeacher, data: Any) -> list[str]:
    from mlxlab.models.model import count_parameters

    lines = [f"teacher: {found.name}, {count_parameters(found.model):,} parameters"]
    if found.held_out and found.held_out != data.held_out:
        lines.append(f"teacher: {found.name} validated on other data: it may have been trained on what validates here")
    return lines


def _cache(cfg: Any, data: Any, ensemble: Ensemble, folder: Path) -> TeacherCache:
    """The cache of these teachers on these data."""
    settings = cfg["trainer"]["teacher_cache"]
    top_k, dtype = settings.get("top_k", 100), settings.get("dtype", "float16")
    odd = sorted(settings.keys() - {"top_k", "dtype"})
    if odd or dtype not in ("float16", "float32") or type(top_k) is not int or top_k < 1:
        what = ", ".join(odd) or f"top_k={top_k}, dtype={dtype}"
        raise ConfigError(
            f"trainer.teacher_cache: {what}; expected {{top_k: a number >= 1, dtype: float16 or float32}}"
        )
    router = repr(cfg["trainer"]["loss"].get("router"))
    parts = (ensemble.hash(), router, data.fingerprint, data.tokenizer.fingerprint, top_k, dtype)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    return TeacherCache(top_k, dtype, folder=folder / f"teacher-{key}", num_classes=data.task.num_classes)


def _words(tokenizer: Tokenizer) -> list[str]:
    return [str(tokenizer.inner.id_to_token(token)) for token in range(tokenizer.vocab_size)]


def _said(tokenizer: Tokenizer) -> str:
    return f"{tokenizer.vocab_size} tokens, {tokenizer.fingerprint[:8]}"
