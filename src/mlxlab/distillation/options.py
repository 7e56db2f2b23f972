"""The options of `trainer=distill`. Imports nothing heavy: the experiment reads them before MLX is loaded."""

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Count, Positive, Size

PREDICTIONS = (".csv", ".tsv", ".jsonl", ".parquet")  # how the names of files of predictions end


class CacheOptions(TypedDict):
    """Classes of each target that are stored, and in which type."""

    top_k: NotRequired[Size]
    dtype: NotRequired[Literal["float16", "float32"]]


@dataclass(frozen=True)
class DistillationOptions:
    """Teachers of a run, and rounds of students.

    Args:
        teachers: run folders, checkpoints, ensembles, registered models (`models:/<name>/1`), and folders or hub ids of
            pretrained models, or one file of predictions for the rows of `data.source` (`probability_<label>` or `value`);
            of an empty list, the student learns from the targets alone; null is for students that teach each other.
            Set by `trainer.teachers`.
        teacher_weights: one per teacher; null weights all equally.
        ensemble_mean: average the teachers' logits or their probabilities; the numbers of a regression as they are.
        teacher_dtype: dtype in which the teachers compute.
        vocab_mapping: same requires teachers with the classes, labels or tokens of the student; subset maps them by
            name where a teacher knows all of them and more.
        teacher_cache: `{top_k: 100, dtype: float16}` stores soft targets on disk, of labels and numbers all of them; null
            queries the teachers each time.
        rounds: students trained one after the other; each joins the ensemble. 0 only joins `members`.
        round_init: fresh draws new weights for each student, previous starts from those of the student before.
        previous_students: what earlier students are to the next: teacher, residual (it learns what they lack), or
            independent.
        members: earlier students, as run folders; each round adds its own.
    """

    teachers: list[str] | None
    teacher_weights: list[Positive] | None
    ensemble_mean: Literal["logits", "probabilities"]
    teacher_dtype: Literal["float32", "bfloat16", "float16"]
    vocab_mapping: Literal["same", "subset"]
    teacher_cache: CacheOptions | None
    rounds: Count
    round_init: Literal["fresh", "previous"]
    previous_students: Literal["teacher", "residual", "independent"]
    members: list[str]

    def __post_init__(self) -> None:
        """Raises ConfigError for what does not go together with a file of predictions."""
        teachers = self.teachers or []
        files = list(filter(is_predictions, teachers))
        if not files:
            return
        if len(teachers) > 1 or self.is_multi_round:
            expected = "expected a file of predictions to be the only teacher, in one round"
            raise ConfigError(f"trainer.teachers: {files[0]}: {expected}")
        if self.teacher_cache is not None:
            expected = "expected null with a file of predictions"
            raise ConfigError(f"trainer.distillation.teacher_cache: {expected}")

    @property
    def is_multi_round(self) -> bool:
        """Whether the run consists of other runs."""
        return self.rounds != 1 or bool(self.members)

    @property
    def models(self) -> list[str]:
        """The teachers, then the earlier students."""
        return [*(self.teachers or []), *self.members]


def is_predictions(teacher: str) -> bool:
    """Whether a teacher is a file of predictions, by its name."""
    return teacher.removesuffix(".gz").endswith(PREDICTIONS)


NO_DISTILLATION = DistillationOptions(
    [], None, "logits", "float32", "same", None, 1, "fresh", "teacher", []
)


def read_options(node: dict[str, Any] | None) -> DistillationOptions:
    """The options of the node `trainer.distillation`; `NO_DISTILLATION` for a trainer without it."""
    return NO_DISTILLATION if node is None else instantiate(node, DistillationOptions)
