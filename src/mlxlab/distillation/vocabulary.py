"""Aligns the classes or tokens of a teacher with those of its student."""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.nn as nn
import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.models.ensemble import FrozenModel


class LoadedTeacher(NamedTuple):
    """A teacher in evaluation mode, with what must fit its student."""

    name: str
    model: nn.Module
    task: Task
    tokenizer: Tokenizer
    max_tokens: int | None  # rows longer than this have no position embeddings; None without a limit
    held_out: str  # fingerprint of its validation data; "" if unknown


def align_vocabulary(
    teacher: LoadedTeacher, task: Task, tokenizer: Tokenizer, max_tokens: int, *, subset: bool
) -> FrozenModel:
    """The teacher with the class or token indices of the student.

    Args:
        task, tokenizer: those of the student.
        max_tokens: the longest row of the student's data.
        subset: the teacher may know more classes or tokens than the student; they are mapped by name.

    Raises:
        NotAllowedError: the teacher has another task, or other classes or tokens.
        ConfigError: the teacher has too few position embeddings.
    """
    title = f"trainer.teachers: {teacher.name}"
    if (task.kind, task.masked) != (teacher.task.kind, teacher.task.masked):
        raise NotAllowedError(f"{title}: expected {_describe_task(task)}, got {_describe_task(teacher.task)}")
    if teacher.max_tokens is not None and max_tokens > teacher.max_tokens:
        # MLX has no bounds checks.
        raise ConfigError(f"{title}: has positions for {teacher.max_tokens} tokens, the data has rows of {max_tokens}")
    same_tokens = teacher.tokenizer.fingerprint == tokenizer.fingerprint
    if task.kind == "language_modelling":
        if same_tokens:
            return FrozenModel(teacher.model)
        table = _index_table(_token_names(teacher.tokenizer), _token_names(tokenizer), subset, title, "tokens")
        return FrozenModel(teacher.model, table, tokens=True)
    if not same_tokens:
        expected, got = (f"{each.vocab_size} tokens, {each.fingerprint[:8]}" for each in (tokenizer, teacher.tokenizer))
        raise NotAllowedError(f"{title}: expected the student's tokenizer ({expected}), got {got}")
    if teacher.task.labels == task.labels:
        return FrozenModel(teacher.model)
    return FrozenModel(teacher.model, _index_table(teacher.task.labels, task.labels, subset, title, "classes"))


def _index_table(teacher: Sequence[str], student: Sequence[str], subset: bool, title: str, kind: str) -> np.ndarray:
    """(V,) int32: the teacher's index of each class or token of the student."""
    if not subset:
        raise NotAllowedError(
            f"{title}: expected the student's {len(student)} {kind}, got {len(teacher)} others; a teacher that knows"
            " all of the student's is mapped by name with trainer.distillation.vocab_mapping=subset"
        )
    indices = {name: index for index, name in enumerate(teacher)}
    if unknown := [name for name in student if name not in indices]:
        example = f"{len(unknown)} of the student's {len(student)} {kind}, for example {unknown[0]!r}"
        raise NotAllowedError(f"{title}: lacks {example}")
    return np.array([indices[name] for name in student], np.int32)


def _token_names(tokenizer: Tokenizer) -> list[str]:
    return [str(tokenizer.inner.id_to_token(token)) for token in range(tokenizer.vocab_size)]


def _describe_task(task: Task) -> str:
    if task.kind == "classification":
        return task.kind
    return "masked language modelling" if task.masked else "causal language modelling"
