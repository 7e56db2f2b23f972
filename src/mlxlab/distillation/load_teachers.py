"""Loads teachers: runs, checkpoints, ensembles, registered models, and third-party pretrained models."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.baselines.out_of_fold import OutOfFold, load_out_of_fold
from mlxlab.config.paths import project_root
from mlxlab.data.batch import Task
from mlxlab.data.dataset import DataModule, Encoder, HasEncoder, LabelledRows
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.distillation.options import DistillationOptions, is_predictions
from mlxlab.distillation.predictions_file import load_predictions
from mlxlab.distillation.teacher_cache import CacheOptions, TeacherCache
from mlxlab.distillation.teachers import HeldOutTargets, Teachers
from mlxlab.errors import ConfigError, InputNotFoundError, NotAllowedError
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.inference.restore import config_dir_of, find_run_dir, restore_from
from mlxlab.models.adapters.quantized import parameter_shapes
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.models.model import Model, count_parameters
from mlxlab.models.pretrained.load import resolve, tokenizer_dir
from mlxlab.models.tabular import TabularHead
from mlxlab.tracking.mlflow.download import download_model, is_mlflow_uri

_ROUND_INIT = "trainer.distillation.round_init=previous"


class LoadedTeacher(NamedTuple):
    """A teacher in evaluation mode, with what must fit its student."""

    name: str
    model: nn.Module
    task: Task
    tokenizer: Tokenizer
    max_tokens: (
        int | None
    )  # rows longer than this have no position embeddings; None without a limit
    held_out: str  # fingerprint of its validation data; "" if unknown
    num_logits: int  # of a language model, per token: its tokenizer may have fewer tokens
    encoder: Encoder | None = None  # None for a third-party model
    said: OutOfFold | None = None  # by a mixture, of its training rows


@dataclass(frozen=True)
class TeacherLoader:
    """Loads the teachers and earlier students that a student learns from."""

    options: DistillationOptions
    tracking_uri: str | None  # the store of registered models; None is the default one
    cache: Path = field(
        default_factory=lambda: project_root() / ".cache"
    )  # of downloads and of soft targets

    def inherited_tokenizer(self, pretrained: str | None) -> Path | None:
        """The folder of the tokenizer that a student inherits: of its pretrained weights, else of its first teacher."""
        if pretrained is not None:
            return tokenizer_dir(pretrained, self.cache)
        if not self.options.models or self.options.vocab_mapping != "same":
            return None
        name = self.options.models[0]
        if is_predictions(name):
            return None
        run = find_run_dir(self._local_path(name))
        return config_dir_of(run) if run is not None else _pretrained_folder(name, self.cache)

    def load_initial_weights(self, model: nn.Module) -> None:
        """Loads the weights of the previous student, with `round_init=previous`."""
        if self.options.members and self.options.round_init == "previous":
            previous = restore_from(Path(self.options.members[-1])).model
            if parameter_shapes(previous) != parameter_shapes(model):
                raise ConfigError(
                    f"{_ROUND_INIT}: the previous student has grown, its weights do not fit a new one"
                )
            model.update(previous.parameters())

    def load(
        self, data: DataModule, seq_len: int, router: object, num_logits: int | None = None
    ) -> tuple[Teachers, list[str]]:
        """The teachers, and messages about them for the user.

        Args:
            seq_len: tokens of a row of the data; 0 without a limit.
            router: the config node of the loss's router.
            num_logits: of a student that is a language model, per token; None if there is no student.

        Raises:
            InputNotFoundError, CheckpointUnavailableError, DataError: a teacher does not exist, or is damaged.
            NotAllowedError: a teacher has another task, other classes or another vocabulary or texts than the student.
            ConfigError: a teacher has too few positions; weights are not one per teacher; an invalid cache option.
        """
        options = self.options
        if not options.models:
            return Teachers(), []
        names = options.teachers or []
        weights = options.teacher_weights
        previous = options.previous_students
        count = len(names)
        if weights is not None and len(weights) != count:
            title = "trainer.distillation.teacher_weights"
            raise ConfigError(
                f"{title}: expected {count} weights, one per teacher, got {len(weights)}"
            )
        if is_predictions(options.models[0]):
            return self._read_predictions(Path(os.path.expanduser(options.models[0])), data)
        teachers = [self._load_teacher(name, data) for name in names]
        students = (
            [self._load_teacher(name, data) for name in options.members]
            if previous != "independent"
            else []
        )
        if previous == "teacher" and weights is not None:
            weights = [*weights, *[sum(weights) / len(weights)] * len(students)]
        members = [*teachers, *students] if previous == "teacher" else teachers
        base = students if previous == "residual" else []
        aligned = [self._align(member, data, seq_len, num_logits) for member in members]
        ensemble = Ensemble(aligned, weights, options.ensemble_mean, data.task.kind)
        residual_base = Ensemble(
            [self._align(member, data, seq_len, num_logits) for member in base]
        )
        for model in (ensemble, residual_base):
            model.set_dtype(getattr(mx, options.teacher_dtype))
            mx.eval(model.parameters())
        teacher_cache = self._open_cache(data, ensemble, router) if ensemble else None
        digests = {
            loaded.name: Ensemble([loaded.model]).digest() for loaded in (*teachers, *students)
        }
        held_out = None
        said = teachers[0].said if len(members) == 1 and teachers else None
        if said is not None and teachers[0].task.labels == data.task.labels:
            held_out = HeldOutTargets(said, data.task.kind)
            digests[teachers[0].name] += held_out.digest()
        messages = []
        for teacher in teachers:
            title = f"teacher: {teacher.name}"
            messages.append(f"{title}, {count_parameters(teacher.model):,} parameters")
            if teacher.held_out not in ("", data.held_out):
                messages.append(
                    f"{title} was validated on other data: it may have been trained on the validation data"
                )
        return Teachers(ensemble, residual_base, teacher_cache, held_out, digests), messages

    def _read_predictions(self, path: Path, data: DataModule) -> tuple[Teachers, list[str]]:
        """As `load`, of a file of predictions."""
        said = load_predictions(path, data, self.cache)
        held_out = HeldOutTargets(said, data.task.kind)
        message = f"teacher: {path}, predictions of {len(said.ids):,} training rows"
        return Teachers(held_out=held_out, digests={str(path): held_out.digest()}), [message]

    def _load_teacher(self, name: str, data: DataModule) -> LoadedTeacher:
        path = self._local_path(name)
        run = find_run_dir(path)
        if run is not None:
            restored = restore_from(path)
            model = restored.model
            task = restored.encoder.task
            tokenizer = restored.encoder.tokenizer
            held_out = restored.checkpoint.state["metadata"]["held_out"]
            limit = (
                model.backbone.position_limit if isinstance(model, Model) else None
            )  # an ensemble has none
            num_logits = restored.checkpoint.state["vocab_size"]
            said = None
            head = model.get("head")
            is_mixture = isinstance(head, TabularHead) and head.is_mixed
            # Ids are those of rows of the same sources, split alike.
            if is_mixture and isinstance(data, LabelledRows) and held_out == data.held_out:
                most = len(data.training_targets)
                said = load_out_of_fold(run, task.num_classes, most)
            return LoadedTeacher(
                name, model, task, tokenizer, limit, held_out, num_logits, restored.encoder, said
            )
        tokenizer = load_tokenizer(_pretrained_folder(name, self.cache))
        kind = data.task.kind
        if kind != "language_modelling":
            expected = f"expected a model for {_describe_task(data.task)}"
            raise NotAllowedError(
                f"trainer.teachers: {name}: {expected}, got a pretrained language model"
            )
        model = build_pretrained_model(resolve(name), tokenizer.vocab_size)
        task = Task(kind, tokenizer.vocab_size, masked=not model.backbone.causal)
        num_logits = model.backbone.embedding.weight.shape[0]
        return LoadedTeacher(
            name, model, task, tokenizer, model.backbone.position_limit, "", num_logits
        )

    def _local_path(self, name: str) -> Path:
        """The path of a teacher; a registered model is downloaded first."""
        if not is_mlflow_uri(name):
            return Path(os.path.expanduser(name))
        return download_model(name, self.tracking_uri, project_root(), self.cache)

    def _align(
        self, teacher: LoadedTeacher, data: DataModule, seq_len: int, num_logits: int | None
    ) -> FrozenModel:
        """The teacher with the classes, labels or tokens of the student, or with its unit of the target."""
        title = f"trainer.teachers: {teacher.name}"
        task = data.task
        _check_rows(teacher, data, seq_len, title)
        if task.kind == "regression":  # each standardises by its own training rows
            shift = (teacher.task.target_mean - task.target_mean) / task.target_deviation
            return FrozenModel(
                teacher.model,
                scale=teacher.task.target_deviation / task.target_deviation,
                shift=shift,
            )
        is_text = task.kind == "language_modelling"
        if not is_text and not task.labels and task.num_classes != teacher.task.num_classes:
            raise NotAllowedError(
                f"{title}: expected {task.num_classes} classes, got {teacher.task.num_classes}"
            )
        same_tokens = teacher.tokenizer.fingerprint == data.tokenizer.fingerprint
        if not same_tokens or teacher.task.labels != task.labels:
            return self._mapped_by_name(teacher, data, num_logits, title)
        if is_text and num_logits not in (None, teacher.num_logits):
            return self._truncated(teacher, title, cast(int, num_logits))
        return FrozenModel(teacher.model)

    def _mapped_by_name(
        self, teacher: LoadedTeacher, data: DataModule, num_logits: int | None, title: str
    ) -> FrozenModel:
        """A teacher that knows all classes, labels or tokens of the student, each found by its name."""
        task = data.task
        if task.kind != "language_modelling":
            kind = "classes" if task.kind == "classification" else "labels"
            own = list(teacher.task.labels)
            names = list(task.labels)
        else:
            kind = "tokens"
            own = _token_names(teacher.tokenizer)
            names = _token_names(data.tokenizer)
        if self.options.vocab_mapping != "subset":
            raise NotAllowedError(
                f"{title}: expected the student's {len(names)} {kind}, got {len(own)} others; a teacher that knows"
                " all of the student's is mapped by name with trainer.distillation.vocab_mapping=subset"
            )
        if kind == "tokens" and num_logits not in (None, len(names)):
            sizes = f"the student has logits of {num_logits} tokens, its tokenizer {len(names)}"
            raise NotAllowedError(
                f"{title}: {sizes}; expected a teacher with the student's tokenizer"
            )
        indices = {name: index for index, name in enumerate(own)}
        if unknown := [name for name in names if name not in indices]:
            example = (
                f"{len(unknown)} of the student's {len(names)} {kind}, for example {unknown[0]!r}"
            )
            raise NotAllowedError(f"{title}: lacks {example}")
        return FrozenModel(
            teacher.model, np.array([indices[name] for name in names]), tokens=kind == "tokens"
        )

    def _truncated(self, teacher: LoadedTeacher, title: str, num_logits: int) -> FrozenModel:
        """A teacher of the student's tokens, under the same ids, and more; NotAllowedError unless the options allow."""
        sizes = f"{title}: has logits of {teacher.num_logits} tokens, the student of {num_logits}"
        if teacher.num_logits < num_logits:
            raise NotAllowedError(f"{sizes}; expected a teacher of these or more tokens")
        if self.options.vocab_mapping != "subset":
            path = "data.tokenizer.path=<inference folder of the teacher>"
            raise NotAllowedError(
                f"{sizes}; to leave out the others: trainer.distillation.vocab_mapping=subset {path}"
            )
        return FrozenModel(teacher.model, np.arange(num_logits), tokens=True)

    def _open_cache(
        self, data: DataModule, ensemble: Ensemble, router: object
    ) -> TeacherCache | None:
        """The cache of these teachers on these data; None if the options ask for none."""
        if self.options.teacher_cache is None:
            return None
        try:
            options: CacheOptions = validate(self.options.teacher_cache, CacheOptions)
        except ShapeError as error:
            raise ConfigError(
                f"trainer.distillation.teacher_cache: {error}; expected top_k and dtype"
            ) from None
        task = data.task
        has_classes = task.kind in ("classification", "language_modelling")
        top_k = options.get("top_k", 100 if has_classes else task.num_classes)
        dtype = options.get("dtype", "float16")
        if not has_classes and top_k < task.num_classes:
            expected = f"expected all {task.num_classes} outputs of the task {task.kind}"
            raise ConfigError(f"trainer.distillation.teacher_cache.top_k: {expected}, got {top_k}")
        inputs = (
            ensemble.digest(),
            repr(router),
            data.fingerprint,
            data.tokenizer.fingerprint,
            top_k,
            dtype,
        )
        key = hashlib.sha256(repr(inputs).encode()).hexdigest()[:32]
        return TeacherCache(
            top_k, dtype, folder=self.cache / f"teacher-{key}", num_classes=task.num_classes
        )


def _check_rows(teacher: LoadedTeacher, data: DataModule, seq_len: int, title: str) -> None:
    """Raises an error unless the teacher can read the student's rows as the student does."""
    task = data.task
    tokenizer = data.tokenizer
    if (task.kind, task.masked) != (teacher.task.kind, teacher.task.masked):
        raise NotAllowedError(
            f"{title}: expected {_describe_task(task)}, got {_describe_task(teacher.task)}"
        )
    if teacher.max_tokens is not None and seq_len > teacher.max_tokens:  # MLX has no bounds checks
        raise ConfigError(
            f"{title}: has positions for {teacher.max_tokens} tokens, the data has rows of {seq_len}"
        )
    same_tokens = teacher.tokenizer.fingerprint == tokenizer.fingerprint
    if task.kind != "language_modelling" and not same_tokens:
        expected, got = (
            f"{each.vocab_size} tokens, {each.fingerprint[:8]}"
            for each in (tokenizer, teacher.tokenizer)
        )
        raise NotAllowedError(f"{title}: expected the student's tokenizer ({expected}), got {got}")
    if (
        teacher.encoder is not None
        and isinstance(data, HasEncoder)
        and not _same_texts(teacher.encoder, data)
    ):
        way = "train both on the same rows (source, seed, fold) with equal templates and data.bins"
        raise NotAllowedError(f"{title}: makes other texts of a row than the student; {way}")


def _same_texts(encoder: Encoder, data: HasEncoder) -> bool:
    from mlxlab.data.labelled.inputs import same_texts

    return same_texts(encoder, data.encoder)


def _pretrained_folder(name: str, cache: Path) -> Path:
    try:
        return tokenizer_dir(name, cache)
    except InputNotFoundError:
        raise InputNotFoundError(
            f"trainer.teachers: {name}: expected a run folder, checkpoint, folder of a pretrained model, or hub id"
        ) from None


def _token_names(tokenizer: Tokenizer) -> list[str]:
    """What identifies each token to another tokenizer: its text."""
    return [str(tokenizer.inner.id_to_token(token)) for token in range(tokenizer.vocab_size)]


def _describe_task(task: Task) -> str:
    if task.kind != "language_modelling":
        return task.kind
    return "masked language modelling" if task.masked else "causal language modelling"
