"""The distillation trainer: `src/main.py` with rounds and ensembles, `src/main_simple.py` with one teacher."""

import re
from collections.abc import Iterable
from pathlib import Path

from mlxlab.cli.translate.flags import (
    BFLOAT16,
    BatchFlags,
    Convert,
    Flag,
    Program,
    Values,
    as_text,
    choice,
    integer,
    items,
    null_if_zero,
    steps_of_micro_batches,
    when_true,
)

SCHEDULES = {
    "cosine": "trainer/schedule=cosine",
    "linear": "trainer/schedule=linear",
    "constant": "trainer/schedule=constant trainer.schedule.warmup=0",
    "constant_with_warmup": "trainer/schedule=constant",
}
DATASET_TYPES = {"full": "", "single": "debug=one_batch", "batch": "debug=overfit"}
OWN_BATCH = "data.batch_size counts the rows of an optimizer step of all processes"
TEACHER = "outputs/teacher"
ENDED = "the old program always stopped at its patience"


def is_olmo(name: str) -> bool:
    """Whether a name is that of published weights of OLMo, an architecture that only model=mlx_lm has."""
    return "OLMo" in name and not (Path(name) / "checkpoints").exists()


def student(value: str, _: Values) -> list[str]:
    return [*(["model=mlx_lm"] if is_olmo(value) else []), f"model.pretrained={as_text(value)}"]


def teachers(value: str, values: Values) -> Iterable[str]:
    """The teachers; for published weights of OLMo, the folder of a run to fill in."""
    if not is_olmo(value):
        return items("trainer.teachers", text=True)(value, values)
    reason = "published weights of OLMo cannot be a teacher, a run of model=mlx_lm can"
    return [
        f"trainer.teachers=[{TEACHER}]",
        f"# {value}: {reason}: write its folder in place of {TEACHER}",
    ]


def conversations(value: str, _: Values) -> list[str]:
    """Files of conversations; for a hub id, the file that its rows have to be written to."""
    if (
        Path(value).exists()
        or value.endswith((".jsonl", ".gz", ".zst"))
        or not re.fullmatch(r"[\w.-]+/[\w.-]+", value)
    ):
        return [f"data.source={as_text(value)}"]
    file = f"{value.partition('/')[2]}.jsonl"
    command = f"load_dataset('{value}', split='train').to_json('{file}')"
    return [
        f"data.source={as_text(file)}",
        f"# {file}: data=instruct reads files; this writes it: {command}",
    ]


def unlimited_if_negative(value: str, _: Values) -> list[str]:
    steps = integer(value, "steps_per_round")
    return [f"trainer.max_steps={steps}"] if steps > 0 else []


def difficulty(value: str, values: Values) -> list[str]:
    """The hardest examples by the losses that an earlier run recorded."""
    source = as_text(values.get("logs-dir", "previous"))
    settings = {"mode": "hardest", "percent": value, "score": "sum", "source": source}
    return [f"data.select.{key}={setting}" for key, setting in settings.items()]


def ranked_losses(_: str, values: Values) -> list[str]:
    percent = values.get("difficulty-filter-percentage")
    return difficulty(percent, values) if percent else []


def members(value: str, values: Values) -> Iterable[str]:
    return (
        items("trainer.distillation.members", text=True)(value, values)
        if value.strip("[] ")
        else []
    )


def in_micro_batches(key: str, default: int) -> Convert:
    return steps_of_micro_batches(key, "gradient-accumulation-steps", default)


FULL_BATCH = BatchFlags("per-device-train-batch-size", 2, "gradient-accumulation-steps", 16)
SIMPLE_BATCH = BatchFlags("batch-size", 8)
COMMAND = (
    Flag(
        "explicit-prefetching",
        reason="the weights of a layer are gathered when it is computed (trainer.parallel=fsdp)",
        kind="switch",
    ),
    Flag(
        "mixed-precision",
        "trainer/step=optimized trainer.step.dtype=bfloat16",
        note=BFLOAT16,
        kind="switch",
    ),
    Flag("config", note="its assignments of literals are read; nothing is executed"),
)
FULL = (
    Flag(
        "teacher-model-name teacher",
        teachers,
        "allenai/OLMo-2-1124-7B-SFT",
        "a run, or published weights of Llama, Mistral, SmolLM or Qwen",
        always=True,
    ),
    Flag("student-model-name student", student, "allenai/OLMo-2-0425-1B-SFT", always=True),
    Flag("tokenizer-name", reason="the tokenizer is that of model.pretrained"),
    Flag(
        "student-vocab-size",
        default="100278",
        reason="the vocabulary is that of model.pretrained, and is checked",
    ),
    Flag("alpha", "trainer.loss.alpha={}", "0.5"),
    Flag("kl-temperature", "trainer.loss.temperature={} trainer.loss.scale_by_t2=false", "1"),
    Flag(
        "total-rounds",
        "trainer.distillation.rounds={} trainer.distillation.previous_students=residual",
        "3",
    ),
    Flag("ensemble-path", members, "[]", reason="an empty ensemble", example="outputs/first"),
    Flag(
        "ensemble-random-init",
        when_true("model.pretrained=null", "trainer.distillation.round_init=fresh"),
        "false",
        kind="switch",
    ),
    Flag("num-train-epochs epochs", "trainer.epochs={}", "1"),
    Flag(
        "steps-per-round",
        unlimited_if_negative,
        "-1",
        reason="-1 sets no limit",
        note="without effect there",
    ),
    Flag("learning-rate lr", "trainer.learning_rate={}", "7.5e-6"),
    Flag(
        "lr-scheduler-type",
        choice("lr-scheduler-type", SCHEDULES),
        "cosine",
        "there it was planned 16 times too long, in micro-batches, and hardly decayed",
    ),
    Flag("warmup-steps", "trainer.schedule.warmup={}", "1000"),
    Flag(
        "weight-decay",
        "trainer.optimizer.weight_decay={}",
        "0.05",
        "it was not applied there: trainer.optimizer.weight_decay=0 reproduces it",
    ),
    Flag("max-grad-norm", null_if_zero("trainer.step.max_grad_norm"), "1.0"),
    Flag("per-device-train-batch-size batch-size", FULL_BATCH, "2", OWN_BATCH),
    Flag("gradient-accumulation-steps", FULL_BATCH, "16", OWN_BATCH),
    Flag("eval-batch-size", "data.eval_batch_size={}", "2"),
    Flag(
        "eval-steps",
        in_micro_batches("trainer.eval_every", 16),
        "10",
        "there it had no effect: logging_steps decided",
    ),
    Flag(
        "logging-steps", in_micro_batches("trainer.log_every", 16), "10", "in micro-batches there"
    ),
    Flag(
        "ckpt-save-steps",
        in_micro_batches("checkpointing.every_steps", 16),
        "500",
        "in micro-batches there",
    ),
    Flag("save-total-limit", "checkpointing.keep={}", "(2, without effect: 3)"),
    Flag("early-stop-patience", null_if_zero("callbacks.early_stopping.patience"), "20", ENDED),
    Flag("early-stop-min-delta", "callbacks.early_stopping.min_delta={}", "1e-6"),
    Flag(
        "enable-id-tracking",
        when_true("callbacks.example_losses.every_steps=1"),
        "false",
        kind="switch",
    ),
    Flag("difficulty-filter-percentage", difficulty, "(25)"),
    Flag(
        "logs-dir",
        ranked_losses,
        reason="losses are recorded in the run folder; data.select.source= reads them",
    ),
    Flag("dataset-name", conversations, "allenai/tulu-3-sft-mixture", always=True),
    Flag(
        "dataset-type",
        choice("dataset-type", DATASET_TYPES),
        "full",
        reason="all of the data",
        example="single",
    ),
    Flag("synthetic-data", when_true("trainer.loss.alpha=1.0"), "false", kind="switch"),
    Flag(
        "resume-from-checkpoint",
        when_true("resume=auto"),
        "false",
        "with hydra.run.dir= of that run",
        kind="switch",
    ),
    Flag(
        "checkpointed-dir",
        "resume={text}",
        note="a run folder of mlxlab; checkpoints of the old program cannot be read",
    ),
    Flag("run-name", "name={text}"),
    Flag("base-output-dir output-dir", "hydra.run.dir={text}"),
    Flag("description", "tags.description={text}"),
    Flag(
        "ddp",
        default="true",
        reason="mlxlab launch shares every batch among its processes",
        kind="switch",
    ),
    Flag(
        "ignore-index",
        default="-100",
        reason="targets that do not count are marked by the data set",
    ),
    Flag("seed", "seed={}", "42"),
)
SIMPLE = (
    Flag(
        "teacher-model-name teacher teacher-model",
        items("trainer.teachers", text=True),
        "Qwen/Qwen2.5-3B-Instruct",
        always=True,
    ),
    Flag(
        "student-model-name student student-model",
        "model.pretrained={text}",
        "Qwen/Qwen2.5-0.5B-Instruct",
        always=True,
    ),
    Flag("num-epochs epochs", "trainer.epochs={}", "3"),
    Flag("batch-size", SIMPLE_BATCH, "8", OWN_BATCH),
    Flag("eval-batch-size", "data.eval_batch_size={}", "16"),
    Flag("learning-rate lr", "trainer.learning_rate={}", "5e-5"),
    Flag("max-grad-norm", null_if_zero("trainer.step.max_grad_norm"), "1.0"),
    Flag("alpha", "trainer.loss.alpha={}", "0.5"),
    Flag("temperature", "trainer.loss.temperature={}", "3.0"),
    Flag("dataset-name", "data.source={text}", "HuggingFaceTB/cosmopedia-100k", always=True),
    Flag(
        "max-seq-length",
        "data.seq_len={}",
        "512",
        "rows are filled with documents here; there each was padded",
    ),
    Flag("output-dir", "hydra.run.dir={text}", "./outputs/distillation"),
    Flag("save-steps", "checkpointing.every_steps={}", "500"),
    Flag("eval-steps", "trainer.eval_every={}", "100"),
    Flag(
        "resume-from-checkpoint",
        when_true("resume=auto"),
        "false",
        "with hydra.run.dir= of that run",
        kind="switch",
    ),
    Flag("run-name", "name={text}"),
    Flag("seed", "seed={}", "42"),
)
IMPLIED = {
    "trainer.step.accumulate": "trainer/step=optimized",
    "trainer.step.dtype": "trainer/step=optimized",
}
BASE = ("model=transformer", "trainer=distill")
CHAT = ("data.seq_len=1024", "data.max_valid_examples=10000", "data.loss_on=assistant")
CACHED = ("trainer.distillation.teacher_cache={top_k: 100, dtype: float16}",)
PAGES = ("trainer/schedule=cosine", "trainer.schedule.warmup=0.1", "data.validation.fraction=0.05")
TITLE = "The distillation trainer"


def program(script: str, data: str, fixed: tuple[str, ...], keys: tuple[Flag, ...]) -> Program:
    return Program(
        TITLE,
        script,
        base=(*BASE, data),
        fixed=fixed,
        flags=COMMAND,
        file_flags=keys,
        file_format="python",
        file_flag="config",
        implied=IMPLIED,
    )


PROGRAMS = (
    program("main", "data=instruct", (*CHAT, *CACHED), FULL),
    program("main_simple", "data=streaming", PAGES, SIMPLE),
)
