"""The unified trainer of BERT and of a CNN hybrid on Titanic sentences: `mlx_bert_cli.py` and its wrappers."""

from mlxlab.cli.translate.flags import (
    BatchFlags,
    Convert,
    Flag,
    Program,
    Values,
    as_text,
    choice,
    count_of,
    counted,
    is_true,
    items,
    null_if_zero,
    on_or_off,
    steps_of_micro_batches,
)

SCRIPTS = ("mlx_bert_cli_v2", "mlx_bert_cli", "train_unified")
IMPLIED = {
    "trainer.step.accumulate": "trainer=optimized",
    "trainer.step.dtype": "trainer=optimized",
    "callbacks.adaptive_batch.": "trainer=optimized",
}
BASE = ("model=bert", "data=titanic")
PRESETS = {
    "production": "experiment=production",
    "quick": "experiment=quick",
    "standard": "experiment=standard",
    "mlx_optimized": "trainer=optimized data.batch_size=64 trainer.learning_rate=3e-5 trainer.epochs=5"
    " trainer.schedule.warmup=100",
}
QUOTE = "'"
ANY_RUN = "outputs/mine"


def adaptive_batch(_: str, values: Values) -> list[str]:
    """Limits on the rows of a batch: half of `batch-size`, and `max-batch-size`."""
    if "no-dynamic-batch" in values or not is_true(values.get("dynamic-batch", "true")):
        return ["callbacks.adaptive_batch.max=null"]
    accumulation = count_of(values, "grad-accum", 1)
    smallest, largest = (
        count_of(values, "batch-size", 32) // 2,
        count_of(values, "max-batch-size", 64),
    )
    limits = {"min": max(1, smallest), "max": largest}
    return [f"callbacks.adaptive_batch.{key}={rows * accumulation}" for key, rows in limits.items()]


def of_the_hybrid(convert: Convert) -> Convert:
    """An option that the BERT of the old program ignored."""
    return lambda value, values: (
        convert(value, values) if values.get("model-type", "").startswith("cnn") else []
    )


def is_pattern(path: str) -> bool:
    return "*" in path or "?" in path


def resume(value: str, _: Values) -> list[str]:
    """A checkpoint of a run; for a pattern, which does not say of which, the folder of a run to fill in."""
    folder = value.rstrip("/")
    if is_pattern(folder):
        return [
            "resume=best",
            f"hydra.run.dir={ANY_RUN}",
            f"# --resume: write the run folder in place of {ANY_RUN}",
        ]
    best = "/best" if folder.endswith("/best") else ""
    return Flag("resume", "resume={text}").overrides(
        folder.removesuffix("/best").removesuffix("/checkpoints") + best, {}
    )


def run(value: str, _: Values) -> list[str]:
    """The run folder of a checkpoint."""
    folder = value.rstrip("/").removesuffix("/best").removesuffix("/checkpoints")
    return [f"run={folder}"]


def run_folder(value: str, values: Values) -> list[str]:
    """A folder for each run, named after the time; that of the resumed run if `resume` sets it."""
    if is_pattern(values.get("resume", "")):
        return []
    folder = as_text(value.rstrip("/"))
    return [
        f"hydra.run.dir={folder.rstrip(QUOTE)}/run_${{now:%Y%m%d_%H%M%S}}{QUOTE if folder.endswith(QUOTE) else ''}"
    ]


def copies(value: str, _: Values) -> list[str]:
    return [f"data.augment.copies={3 if is_true(value) else 1}"]


DILATIONS = on_or_off("model.dilations", "[1, 2, 4]", "[]")
BATCH = BatchFlags("batch-size", 32, "grad-accum")
IGNORED = "model=bert has no convolutions; it was ignored there too without --model-type cnn_hybrid"
OWN_RUNS = "only runs of mlxlab can be resumed, not checkpoints of the old program"
OWN_CHECKPOINTS = "a run folder of mlxlab; checkpoints of the old program cannot be read"
CONFIG = Flag("config c", note="its keys win over the flags, as they did there")
TRAIN_FLAGS = (
    Flag("train t train-path data", "data.source={text}"),
    Flag("val v val-path", "data.valid_source={text}"),
    Flag("output o output-dir", run_folder, "./output"),
    Flag(
        "model m model-name",
        "model.pretrained={text}",
        "(ModernBERT-base)",
        "its weights are loaded here; there the BERT took only its tokenizer and the hybrid only its shape",
    ),
    Flag(
        "model-type",
        choice("model-type", {"base": "model=bert", "cnn_hybrid": "model=cnn_hybrid"}),
        "base",
    ),
    Flag("batch-size b", BATCH, "32", "data.batch_size counts the rows of an optimizer step"),
    Flag("lr learning-rate", "trainer.learning_rate={}", "2e-5"),
    Flag("epochs e num-epochs", "trainer.epochs={}", "5"),
    Flag("max-length", "data.seq_len={}", "256"),
    Flag("warmup-ratio", "trainer.schedule.warmup={}", "0.1"),
    Flag("grad-accum gradient-accumulation gradient-accumulation-steps", BATCH, "1", example="4"),
    Flag("workers w num-workers", default="4", reason="one thread prepares the batches"),
    Flag("prefetch prefetch-size", "data.prefetch={}", "4"),
    Flag("experiment experiment-name", "tracking.experiment={text}", "mlx_unified"),
    Flag("run-name", "name={text}", "(model type and time)"),
    Flag("no-mlflow disable-mlflow", "tracking=none", kind="switch"),
    Flag("augment", copies, "true", kind="switch"),
    Flag("no-augment", "data.augment.copies=1", kind="switch"),
    Flag("dynamic-batch enable-dynamic-batching", adaptive_batch, "true", kind="switch"),
    Flag("no-dynamic-batch", "callbacks.adaptive_batch.max=null", kind="switch"),
    Flag("max-batch-size", adaptive_batch, "64"),
    Flag(
        "early-stopping early-stopping-patience",
        null_if_zero("callbacks.early_stopping.patience"),
        "3",
    ),
    Flag("grad-clip gradient-clip", null_if_zero("trainer.step.max_grad_norm"), "1.0"),
    Flag("label-smoothing", "trainer.label_smoothing={}", "0.0"),
    Flag("eval-steps", steps_of_micro_batches("trainer.eval_every", "grad-accum"), "100"),
    Flag("save-steps", steps_of_micro_batches("checkpointing.every_steps", "grad-accum"), "100"),
    Flag("resume", resume, note=OWN_RUNS, example="output/run_1"),
    CONFIG,
    Flag(
        "cnn-kernels cnn-kernel-sizes kernel-sizes",
        of_the_hybrid(items("model.kernel_sizes")),
        "2,3,4,5",
        reason=IGNORED,
        kind="list",
    ),
    Flag(
        "cnn-filters cnn-num-filters num-filters",
        of_the_hybrid(lambda value, _: [f"model.num_filters={value}"]),
        "128",
        reason=IGNORED,
    ),
    Flag(
        "dilated use-dilated-conv", of_the_hybrid(DILATIONS), "true", reason=IGNORED, kind="switch"
    ),
    Flag(
        "no-dilated",
        of_the_hybrid(lambda _, __: ["model.dilations=[]"]),
        reason=IGNORED,
        kind="switch",
    ),
)
UNREACHABLE = "no flag and no file set it there"
FILE_FLAGS = (  # of configuration files; their other keys are spellings of flags
    Flag("warmup-steps", "trainer.schedule.warmup={}", note="ignored there"),
    Flag(
        "configurations",
        reason="ignored there; the presets are experiment=quick, standard and production",
    ),
    Flag("weight-decay", "trainer.optimizer.weight_decay={}", "0.01", UNREACHABLE),
    Flag("early-stopping-threshold", "callbacks.early_stopping.min_delta={}", "0.001", UNREACHABLE),
    Flag("lazy-eval-interval", default="10", reason="the step decides when arrays are computed"),
    Flag("memory-threshold", "callbacks.adaptive_batch.high={}", "0.8", UNREACHABLE),
    Flag("eval-batch-size", "data.eval_batch_size={}", "64", UNREACHABLE),
    Flag("enable-caching", default="true", reason="tokens are always cached"),
    Flag(
        "cache-dir", default="cache/tokenized", reason="caches are in .cache of the project folder"
    ),
    Flag("tracking-uri", "tracking.uri={text}", note=UNREACHABLE),
    Flag("log-models", "tracking.log_models={}", "true", UNREACHABLE),
    Flag(
        "enable-quantization quantization-bits quantization-group-size",
        default="false",
        reason="mlxlab export quantize, after training",
    ),
    Flag("save-total-limit", "checkpointing.keep={}", "3", UNREACHABLE),
    Flag(
        "enable-profiling profile-memory-steps",
        default="true",
        reason="callbacks.memory_monitor is always on",
    ),
    Flag("enable-visualization", default="true", reason="plots are always drawn"),
    Flag(
        "training-modifiers", default="{}", reason="overrides on the command line take their place"
    ),
)

RUN = Flag("checkpoint c", run, note=OWN_CHECKPOINTS, example="output/run_1", required=True)
OWN_SIZES = "the suite has sizes of its own"
TITLE = "The unified BERT trainer"


def train_program(script: str, subcommand: str) -> Program:
    return Program(
        TITLE,
        script,
        subcommand,
        base=BASE,
        flags=TRAIN_FLAGS,
        file_flags=FILE_FLAGS,
        file_format="json",
        file_flag="config",
        presets=PRESETS,
        implied=IMPLIED,
    )


def programs(script: str) -> tuple[Program, ...]:
    """The subcommands of one of the scripts."""
    predict = (
        Flag("test t", "input={}", required=True),
        RUN,
        Flag("output o", "output={}", "submission.csv", always=True),
        Flag("batch-size b", "batch_size={}", "64"),
        Flag("max-length", default="256", reason="the length is that of the run"),
    )
    benchmark = (
        Flag("batch-size b", default="32", reason=OWN_SIZES),
        Flag("seq-length s", default="256", reason=OWN_SIZES),
        Flag("steps n", counted("rounds"), "20"),
        Flag(
            "model-type",
            choice("model-type", {"base": "model=bert", "cnn_hybrid": ""}),
            "base",
            reason="not in the suite",
        ),
        Flag("warmup", default="5", reason="the suite warms up by itself"),
    )
    export = (
        RUN,
        Flag("output o", "out={}", required=True),
        Flag(
            "format f",
            choice("format", {"mlx": "", "onnx": ""}),
            "mlx",
            reason="safetensors; ONNX was not supported there either",
        ),
    )
    kaggle = ("format=kaggle", "keep=[PassengerId]")
    return (
        train_program(script, "train"),
        Program(TITLE, script, "predict", "predict", kaggle, flags=predict),
        Program(
            TITLE, script, "benchmark", "python -m benchmarks", ("suite=steps",), flags=benchmark
        ),
        Program(TITLE, script, "info", "info presets"),
        Program(TITLE, script, "export", "export hf", flags=export),
        Program(TITLE, script, "list-experiments", "runs list"),
    )


PROGRAMS = (
    *(program for script in SCRIPTS[:2] for program in programs(script)),
    train_program("train_unified", ""),
)
