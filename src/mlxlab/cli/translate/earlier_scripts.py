"""The scripts before the unified BERT trainer, each with a command line of its own."""

from collections.abc import Iterable

from mlxlab.cli.translate.bert_trainer import (
    BASE,
    CONFIG,
    DILATIONS,
    FILE_FLAGS,
    IMPLIED,
    OWN_CHECKPOINTS,
    PRESETS,
    TRAIN_FLAGS,
    run_folder,
)
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
    items,
    on_or_off,
    when_true,
)

LOSSES = {
    "focal": "trainer/loss=focal",
    "weighted_ce": "trainer/loss=weighted",
    "label_smooth": "trainer.label_smoothing=0.1",
    "focal_smooth": "trainer/loss=focal trainer.label_smoothing=0.1",
    "dice": "",
    "tversky": "",
    "adaptive": "",
    "standard": "trainer/loss=cross_entropy",
}
OPTIMIZERS = {
    "adamw": "trainer/optimizer=adamw",
    "sgd": "trainer/optimizer=sgd",
    "adam": "trainer/optimizer=adamw trainer.optimizer.weight_decay=0",
    "adamax": "",
    "rmsprop": "",
    "adagrad": "",
    "adadelta": "",
    "lion": "trainer/optimizer=lion",
}
CONFIGS = {
    "standard": "experiment=standard",
    "quick": "experiment=quick",
    "thorough": "experiment=standard trainer.epochs=10 data.batch_size=16 trainer.learning_rate=1e-5"
    " trainer.schedule.warmup=200 trainer.eval_every=100",
    "experimental": "experiment=standard trainer.epochs=15 data.batch_size=8 trainer.learning_rate=5e-6"
    " trainer.schedule.warmup=300 trainer.eval_every=150",
}
BY_NAME = {flag.name: flag for flag in (*TRAIN_FLAGS, *FILE_FLAGS)}
LEVEL = Flag(
    "log-level",
    default="INFO",
    reason="messages of level INFO go to stderr, metrics to the run folder",
)
ONE = "with --compare-models only options of both models"
PLOTS = "plots are always drawn"
PREDICT = "afterwards: mlxlab predict run=<run folder> input=<test file> output=submission.csv"


def again(name: str, names: str, default: str | None = None, example: str = "") -> Flag:
    """A flag of the unified trainer under the names and with the default of another script."""
    flag = BY_NAME[name]
    return Flag(names, flag.to, default, flag.note, flag.reason, flag.kind, example=example)


def in_folder(key: str) -> Convert:
    """A file in the folder of `data-dir`."""
    return lambda value, values: [
        f"{key}={as_text(values.get('data-dir', 'data/titanic') + '/' + value)}"
    ]


def data_folder(value: str, values: Values) -> list[str]:
    files = {
        "data.source": ("train-file", "train.csv"),
        "data.valid_source": ("val-file", "val.csv"),
    }
    return [
        f"{key}={as_text(f'{value}/{values.get(flag, name)}')}"
        for key, (flag, name) in files.items()
    ]


def adaptive_batch(_: str, values: Values) -> list[str]:
    """Limits on the rows of a batch: half of `base-batch-size`, and `max-batch-size`."""
    accumulation = count_of(values, "gradient-accumulation-steps", 1)
    limits = {
        "min": count_of(values, "base-batch-size", 32) // 2 or 1,
        "max": count_of(values, "max-batch-size", 64),
    }
    return [f"callbacks.adaptive_batch.{key}={rows * accumulation}" for key, rows in limits.items()]


def with_momentum(value: str, values: Values) -> list[str]:
    return [f"trainer.optimizer.momentum={value}"] if values.get("optimizer") == "sgd" else []


def with_betas(value: str, values: Values) -> Iterable[str]:
    return (
        items("trainer.optimizer.betas")(value, values)
        if values.get("optimizer", "adamw") != "sgd"
        else []
    )


def of_one_model(convert: Convert) -> Convert:
    """An option of the hybrid, which a comparison with BERT cannot have."""
    return lambda value, values: [] if "compare-models" in values else convert(value, values)


def weight_decay(value: str, values: Values) -> list[str]:
    return [] if values.get("optimizer") == "adam" else [f"trainer.optimizer.weight_decay={value}"]


FUSION, HIGHWAY = (
    on_or_off("model.fusion", "attention", "concat"),
    on_or_off("model.highway", "true", "false"),
)
SIMPLE_BATCH, OPTIMIZED_BATCH = (
    BatchFlags("batch-size", 16),
    BatchFlags("base-batch-size", 32, "gradient-accumulation-steps"),
)
TITANIC = (
    again("train", "train-path"),
    again("val", "val-path"),
    Flag("test-path", reason=PREDICT),
    again("model", "model-name", "(ModernBERT-base)"),
    Flag("batch-size", SIMPLE_BATCH, "16"),
    again("lr", "learning-rate", "2e-5"),
    again("epochs", "num-epochs epochs", "3"),
    again("output", "output-dir", "./output"),
    Flag("experiment-name", again("experiment", "x").to, "titanic_modernbert"),
    again("run-name", "run-name"),
    LEVEL,
    again("no-mlflow", "disable-mlflow"),
    Flag("do-train", reason="mlxlab train always trains", kind="switch"),
    Flag("do-predict", reason=PREDICT, kind="switch"),
    Flag("do-visualize", reason=PLOTS, kind="switch"),
    Flag("launch-mlflow", reason="mlxlab ui", kind="switch"),
    Flag("checkpoint-path", "resume={text}", note=OWN_CHECKPOINTS),
)
OPTIMIZED = (
    Flag("data-dir data", data_folder, "data/titanic"),
    Flag("train-file", in_folder("data.source"), "train.csv"),
    Flag("val-file", in_folder("data.valid_source"), "val.csv"),
    Flag("test-file", default="test.csv", reason=PREDICT),
    again("model", "model-name", "(ModernBERT-base)"),
    Flag("config-path", note=CONFIG.note),
    again("epochs", "epochs num-epochs", "5"),
    Flag("base-batch-size batch-size", OPTIMIZED_BATCH, "32"),
    Flag("max-batch-size", adaptive_batch, "64"),
    Flag("eval-batch-size", "data.eval_batch_size={}", "64"),
    Flag("gradient-accumulation-steps gradient-accumulation", OPTIMIZED_BATCH, "1"),
    again("lr", "learning-rate", "2e-5"),
    Flag("weight-decay", "trainer.optimizer.weight_decay={}", "0.01"),
    again("warmup-ratio", "warmup-ratio", "0.1"),
    again("workers", "num-workers", "8"),
    again("prefetch", "prefetch-size", "4"),
    again("lazy-eval-interval", "lazy-eval-interval", "10"),
    Flag("memory-threshold", "callbacks.adaptive_batch.high={}", "0.8"),
    again("output", "output-dir", "(none)", "output"),
    Flag("save-steps", "checkpointing.every_steps={}", "100"),
    Flag("eval-steps", "trainer.eval_every={}", "100"),
    Flag("experiment-name", "tracking.experiment={text}", "(titanic_optimized)"),
    again("run-name", "run-name"),
    Flag(
        "enable-mlflow",
        choice("enable-mlflow", {"true": "tracking=mlflow", "false": "tracking=none"}),
        "false",
        kind="switch",
    ),
    Flag("seed", "seed={}", "42"),
    Flag("enable-profiling", reason="callbacks.memory_monitor is always on", kind="switch"),
    LEVEL,
)
HYBRID = (
    Flag(
        "model-type",
        choice("model-type", {"cnn_hybrid": "model=cnn_hybrid", "base": "model=bert"}),
        "cnn_hybrid",
    ),
    again("train", "train-path data"),
    again("val", "val-path"),
    Flag("batch-size", BatchFlags("batch-size", 32), "32"),
    again("lr", "learning-rate", "2e-5"),
    again("epochs", "epochs num-epochs", "5"),
    again("warmup-ratio", "warmup-ratio", "0.1"),
    Flag(
        "cnn-kernel-sizes kernel-sizes",
        of_one_model(items("model.kernel_sizes")),
        "2 3 4 5",
        "",
        ONE,
        "list",
    ),
    Flag(
        "cnn-num-filters num-filters",
        of_one_model(lambda value, _: [f"model.num_filters={value}"]),
        "128",
        "",
        ONE,
    ),
    Flag("use-dilated-conv", of_one_model(DILATIONS), "true", "", ONE, "switch"),
    Flag("use-attention-fusion", of_one_model(FUSION), "true", "", ONE, "switch"),
    Flag("use-highway", of_one_model(HIGHWAY), "true", "", ONE, "switch"),
    Flag(
        "optimizer",
        choice("optimizer", OPTIMIZERS),
        "adamw",
        reason="not implemented here; the options of trainer/optimizer are adamw, adafactor, lion, sgd and muon",
    ),
    Flag("weight-decay", weight_decay, "0.01", reason="Adam has no decoupled weight decay"),
    Flag("betas", with_betas, "0.9 0.999", reason="SGD has none", kind="list"),
    Flag("output-dir output", run_folder, "(none)", example="output"),
    Flag("experiment-name", "tracking.experiment={text}"),
    Flag(
        "enable-mlflow",
        when_true("tracking=mlflow"),
        "true",
        "it could not be turned off there",
        kind="switch",
    ),
    Flag("enable-visualization", default="true", reason=PLOTS, kind="switch"),
)
PLAIN_HYBRID = (
    *HYBRID,
    Flag("momentum", with_momentum, "0.9", reason="only SGD has one"),
    Flag("compare-models", "-m model=bert,cnn_hybrid", kind="switch"),
)
ENHANCED_HYBRID = (
    *HYBRID,
    Flag(
        "loss-function",
        choice("loss-function", LOSSES),
        "focal",
        reason="not implemented here; the options are those of trainer/loss, and docs/how_to/extending.md adds one",
    ),
    Flag(
        "gradient-clipping",
        default="true",
        reason="on unless trainer.step.max_grad_norm=null",
        kind="switch",
    ),
    Flag("max-gradient-norm", "trainer.step.max_grad_norm={}", "1.0"),
    Flag("gradient-log-interval", "trainer.log_every={}", "50"),
    Flag(
        "mlflow-base-dir",
        reason="tracking.uri=sqlite:///<file> names the store, tracking.artifacts the folder",
    ),
)
PRODUCTION = (
    Flag("config", choice("config", CONFIGS), "standard", always=True),
    Flag("experiment-name", "tracking.experiment={text}"),
    Flag(
        "enable-mlflow",
        choice("enable-mlflow", {"true": "tracking=mlflow", "false": "tracking=none"}),
        "false",
        kind="switch",
    ),
    Flag("predict", reason=PREDICT, kind="switch"),
)
BENCHMARK = (
    Flag("output-dir", "save={}/steps"),
    Flag("num-steps", counted("rounds"), "100"),
    Flag("batch-sizes", default="16 32 64", reason="the suite has sizes of its own", kind="list"),
    Flag("enable-memory-profiling", when_true("suite=memory"), kind="switch"),
)
MIGRATION = tuple(
    Flag(name, kind="switch") for name in ("root-dir", "dry-run", "interactive", "backup")
)
STORES = "stores of old programs are moved by `mlxlab migrate source=FOLDER`, with `dry_run=true` to try it"
TITLE = "The scripts before the unified BERT trainer"
HYBRID_BASE = ("model=cnn_hybrid", "data=titanic")
PROGRAMS = (
    Program(TITLE, "train_titanic_v2", base=BASE, flags=TITANIC, implied=IMPLIED),
    Program(
        TITLE,
        "train_optimized",
        base=(*BASE, "trainer=optimized"),
        flags=OPTIMIZED,
        file_flags=tuple(
            flag for flag in FILE_FLAGS if flag.name not in {own.name for own in OPTIMIZED}
        ),
        file_format="json",
        file_flag="config-path",
        presets=PRESETS,
    ),
    Program(TITLE, "train_cnn_hybrid", base=HYBRID_BASE, flags=PLAIN_HYBRID),
    Program(TITLE, "train_cnn_hybrid_enhanced", base=HYBRID_BASE, flags=ENHANCED_HYBRID),
    Program(TITLE, "run_production", base=BASE, flags=PRODUCTION),
    Program(
        TITLE,
        "benchmark_optimizations",
        to="python -m benchmarks",
        base=("suite=steps",),
        flags=BENCHMARK,
    ),
    Program(TITLE, "migrate_mlflow_databases", to="", flags=MIGRATION, reason=STORES),
)
