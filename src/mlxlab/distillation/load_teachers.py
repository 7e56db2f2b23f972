"""Loads teachers: runs, checkpoints, ensembles, registered models, and third-party pretrained models."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.config.paths import project_root
from mlxlab.data.batch import Task
from mlxlab.data.dataset import DataModule, Encoder, LabelledRows
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.distillation.options import DistillationOptions, is_predictions
from mlxlab.distillation.teacher_cache import TeacherCache
from mlxlab.distillation.teachers import HeldOutTargets, Teachers, load_predictions
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.inference.restore import config_dir_of, find_run_dir, restore_from
from mlxlab.models.adapters.quantized import parameter_shapes
from mlxlab.models.baselines.mixture import OutOfFold, load_out_of_fold
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.models.model import Model, count_parameters
from mlxlab.models.pretrained.load import resolve, tokenizer_dir
from mlxlab.models.tabular import TabularHead
from mlxlab.tracking.mlflow.download import download_model, is_mlflow_uri

Names = Sequence[str | int]
_ROUND_INIT = "trainer.distillation.round_init=previous"


class LoadedTeacher(NamedTuple):
    """A teacher in evaluation mode, with what must fit its student."""

    name: str
    model: nn.Module
    task: Task
    tokenizer: Tokenizer
    max_tokens: int | None  # Longer rows have no position embeddings; None without a limit.
    held_out: str  # fingerprint of its validation data; "" if unknown
    num_logits: int  # logits per token of a language model: its tokenizer may have fewer tokens
    encoder: Encoder | None = None  # None for a third-party model
    said: OutOfFold | None = None  # predictions of a mixture for its training rows


@dataclass(frozen=True)
class TeacherLoader:
    """Loads the teachers and earlier students that a student learns from."""

    options: DistillationOptions
    tracking_uri: str | None  # the store of registered models; None is the default one
    # Downloads and soft targets go there.
    cache: Path = field(default_factory=lambda: project_root() / ".cache")

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
        if run is None:
            return _pretrained_folder(name, self.cache)
        return config_dir_of(run)

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
        if weights is not None and len(weights) != len(names):
            expected = f"expected {len(names)} weights, one per teacher, got {len(weights)}"
            raise ConfigError(f"trainer.distillation.teacher_weights: {expected}")
        if is_predictions(options.models[0]):
            return self._read_predictions(Path(os.path.expanduser(options.models[0])), data)
        students = [] if options.previous_students == "independent" else options.members
        loaded = [self._load_teacher(name, data) for name in (*names, *students)]
        aligned = [self._align(each, data, seq_len, num_logits) for each in loaded]
        count = len(loaded) if options.previous_students == "teacher" else len(names)
        if weights:
            weights = [*weights, *[sum(weights) / len(weights)] * (count - len(names))]
        ensemble = Ensemble(aligned[:count], weights, options.ensemble_mean, data.task.kind)
        residual_base = Ensemble(aligned[count:])
        for model in (ensemble, residual_base):
            model.set_dtype(getattr(mx, options.teacher_dtype))
            mx.eval(model.parameters())
        cache = self._open_cache(data, ensemble, router)
        digests = {each.name: Ensemble([each.model]).digest() for each in loaded}
        held_out = None
        if names and count == 1:
            single = loaded[0]
            if single.said is not None and single.task.labels == data.task.labels:
                held_out = HeldOutTargets(single.said, data.task.kind)
                digests[single.name] += held_out.digest()
        messages: list[str] = []
        for teacher in loaded[: len(names)]:
            title = f"teacher: {teacher.name}"
            messages.append(f"{title}, {count_parameters(teacher.model):,} parameters")
            if teacher.held_out not in ("", data.held_out):
                doubt = "it may have been trained on the validation data"
                messages.append(f"{title} was validated on other data: {doubt}")
        return Teachers(ensemble, residual_base, cache, held_out, digests), messages

    def _read_predictions(self, path: Path, data: DataModule) -> tuple[Teachers, list[str]]:
        """Loads a file of predictions in place of models."""
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
            # An ensemble has no backbone.
            limit = None
            if isinstance(model, Model):
                limit = model.backbone.position_limit
            num_logits = restored.checkpoint.state["vocab_size"]
            said = None
            head = model.get("head")
            is_mixture = isinstance(head, TabularHead) and head.is_mixed
            # Ids are those of rows of the same sources, split alike.
            if is_mixture and isinstance(data, LabelledRows) and held_out == data.held_out:
                said = load_out_of_fold(run, task.num_classes, len(data.training_targets))
            return LoadedTeacher(
                name, model, task, tokenizer, limit, held_out, num_logits, restored.encoder, said
            )
        tokenizer = load_tokenizer(_pretrained_folder(name, self.cache))
        model = build_pretrained_model(resolve(name), tokenizer.vocab_size)
        task = Task("language_modelling", tokenizer.vocab_size, masked=not model.backbone.causal)
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
        if task.kind != "language_modelling" and not task.labels:
            if task.num_classes != teacher.task.num_classes:
                got = teacher.task.num_classes
                raise NotAllowedError(f"{title}: expected {task.num_classes} classes, got {got}")
        own, names = _output_names(teacher, data, num_logits)
        if own == names and teacher.tokenizer.fingerprint == data.tokenizer.fingerprint:
            return FrozenModel(teacher.model)
        return self._mapped_by_name(teacher, own, names, title)

    def _mapped_by_name(
        self, teacher: LoadedTeacher, own: Names, names: Names, title: str
    ) -> FrozenModel:
        """A teacher that has all outputs of the student, each found by its name."""
        is_text = teacher.task.kind == "language_modelling"
        kind = "tokens" if is_text else "labels"
        if self.options.vocab_mapping != "subset":
            raise NotAllowedError(
                f"{title}: expected the student's {len(names)} {kind}, got {len(own)}; of a teacher that has all of"
                " the student's trainer.distillation.vocab_mapping=subset leaves out the others"
            )
        indices = {name: index for index, name in enumerate(own)}
        unknown = [name for name in names if name not in indices]
        if unknown:
            lacks = f"lacks {len(unknown)} of the student's {len(names)} {kind}"
            raise NotAllowedError(f"{title}: {lacks}, for example {unknown[0]!r}")
        table = np.array([indices[name] for name in names])
        return FrozenModel(teacher.model, table, tokens=is_text)

    def _open_cache(
        self, data: DataModule, ensemble: Ensemble, router: object
    ) -> TeacherCache | None:
        """The cache of these teachers on these data; None without teachers, or if the options ask for none."""
        options = self.options.teacher_cache
        if options is None or not ensemble:
            return None
        task = data.task
        top_k = task.num_classes
        if task.kind in ("classification", "language_modelling"):
            top_k = options.get("top_k", 100)
        dtype = options.get("dtype", "float16")
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
        raise NotAllowedError(f"{title}: expected the student's tokenizer, got another")
    if teacher.encoder is None:
        return
    from mlxlab.data.labelled.inputs import same_texts

    if not same_texts(teacher.encoder, getattr(data, "encoder", None)):
        way = "train both on the same rows (source, seed, fold) with equal templates and data.bins"
        rule = "model=tabular teaches model=tabular alone"
        raise NotAllowedError(
            f"{title}: reads a row in another form than the student; {way}; {rule}"
        )


def _pretrained_folder(name: str, cache: Path) -> Path:
    return tokenizer_dir(str(resolve(name, "trainer.teachers")), cache)


def _output_names(
    teacher: LoadedTeacher, data: DataModule, num_logits: int | None
) -> tuple[Names, Names]:
    """What identifies each output of the teacher, and of its student: a label, the text of a token, or its id."""
    if data.task.kind != "language_modelling":
        return list(teacher.task.labels), list(data.task.labels)
    if teacher.tokenizer.fingerprint == data.tokenizer.fingerprint:
        return [*range(teacher.num_logits)], [*range(num_logits or teacher.num_logits)]
    names = _token_texts(data.tokenizer)
    return _token_texts(teacher.tokenizer), [*names, *range(len(names), num_logits or 0)]


def _token_texts(tokenizer: Tokenizer) -> Names:
    return [str(tokenizer.inner.id_to_token(token)) for token in range(tokenizer.vocab_size)]


def _describe_task(task: Task) -> str:
    if task.kind != "language_modelling":
        return task.kind
    if task.masked:
        return "masked language modelling"
    return "causal language modelling"
