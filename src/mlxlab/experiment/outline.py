"""What a config would train, built without weights: the model, its optimizer, and the largest of some batches."""

from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.data.batch import Batch
from mlxlab.data.dataset import CountsExamples
from mlxlab.distillation.load_teachers import TeacherLoader
from mlxlab.distillation.options import NO_DISTILLATION
from mlxlab.estimate.step import StepOptions, TracedStep
from mlxlab.experiment.build import Config, build_data
from mlxlab.models.build import build_model
from mlxlab.models.model import Model
from mlxlab.training.losses.task_loss import refuse_misfit
from mlxlab.training.trainer import Trainer

BATCHES = 1000  # of which the largest is taken: batches of labelled rows differ in length


class Outline(NamedTuple):
    """A model whose arrays are never evaluated, its training step, and a batch of how many training rows.

    Attributes:
        which: `largest batch of an epoch`, say.
        examples: training rows; None if they are not counted.
    """

    model: Model
    step: TracedStep
    batch: Batch
    which: str
    examples: int | None


def build_outline(cfg: Config, folder: Path) -> Outline:
    """The outline of a resolved config, without its teachers; `folder` is a temporary one.

    Raises:
        UserError: as a run of this config.
    """
    loader = TeacherLoader(NO_DISTILLATION, None)
    pretrained = cfg["model"].get("pretrained")
    data = build_data(cfg, project_root(), loader.inherited_tokenizer(pretrained), folder)
    teachers, _ = loader.load(data, cfg["data"].get("seq_len", 0), None)
    refuse_misfit(cfg["trainer"]["loss"], data.task.kind)
    runtime = {"task": data.task, "class_counts": data.class_counts, "loaded_teachers": teachers}
    trainer = instantiate(cfg["trainer"], Trainer, **runtime)
    model = build_model(
        cfg["model"],
        kind=data.task.kind,
        vocab_size=data.tokenizer.vocab_size,
        num_classes=data.task.num_classes,
        pair_separator=data.task.pair_separator,
        load_pretrained=False,
        vocabulary=data.tokenizer.vocabulary,
    )
    model.train()
    trainer.loss.setup(model, 0)
    which, examples, count = "batch", None, 1  # of text: all have one shape
    if isinstance(data, CountsExamples):
        which, examples, count = "largest batch of an epoch", data.num_examples["training"], BATCHES
        if (data.train.batches_per_epoch or 0) > BATCHES:
            which = f"largest of the first {BATCHES:,} batches"
    batch = max(islice(data.train, count), key=lambda each: each.tokens.size)
    step = TracedStep(
        model, trainer.new_optimizer(model), trainer.loss, step_options(cfg["trainer"]["step"])
    )
    return Outline(model, step, trainer.annotate(batch, 0.0), which, examples)


def step_options(node: Config) -> StepOptions:
    """Those of a `trainer.step` node; `accumulate: auto` counts as 1, and a step of the user as the plain one."""
    if "accumulate" not in node:
        return StepOptions()
    accumulate = 1 if node["accumulate"] == "auto" else node["accumulate"]
    return StepOptions(
        plain=False,
        accumulate=accumulate,
        activation_checkpointing=node["activation_checkpointing"],
        head_chunk=node["head_chunk"],
        dtype=node["dtype"] if node["allow_slow_dtype"] else "float32",
        one_graph=not node["retry_on_oom"],
    )
