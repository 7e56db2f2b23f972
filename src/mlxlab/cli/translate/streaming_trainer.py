"""The trainer of a decoder on streamed text: `python -m src.training.train_advanced`, and its generation."""

from mlxlab.cli.translate.bert_trainer import OWN_CHECKPOINTS
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
    null_if_zero,
)
from mlxlab.cli.translate.shape import ShapeFlags

SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
BATCH = BatchFlags("batch-size", 32, "gradient-accumulation-steps")
SHAPE = ShapeFlags(
    ("d-model", 512), ("num-layers", 6), ("num-heads", 8), ("d-ff", 2048), preset="model-preset"
)
PRESET_WINS = "ignored with --model-preset, there too"
NO_CLOUD = "no effect without --cloud-provider, there too"
SECRET = "never on a command line; set it in the environment: "


def feed_forward(value: str, values: Values) -> list[str]:
    """The activation of plain feed-forward layers."""
    return [f"model.mlp_type={value}"] if "no-swiglu" in values else []


def plain_feed_forward(_: str, values: Values) -> list[str]:
    return [f"model.mlp_type={values.get('activation', 'gelu')}"]


def adapter(value: str, values: Values) -> list[str]:
    return ["model/adapter=lora", f"model.adapter.rank={values.get('lora-rank', '8')}"]


def save_every(value: str, _: Values) -> list[str]:
    """0 was never: only the last checkpoint and the best one are left then."""
    return [f"checkpointing.every_steps={integer(value, 'save-every') or 1_000_000_000}"]


def split_checkpoint(path: str) -> tuple[str, str]:
    """(run folder, name of the checkpoint here, or "") of a checkpoint of the old program."""
    folder, _, name = path.rstrip("/").rpartition("/")
    step = name.removeprefix("checkpoint_step_")
    names = {
        "final_checkpoint": "last",
        "best_checkpoint": "best",
        f"checkpoint_step_{step}": f"step-{step}",
    }
    return (folder or ".", names[name]) if name in names else (path, "")


def resume(value: str, _: Values) -> list[str]:
    return [f"resume={as_text('/'.join(filter(None, split_checkpoint(value))))}"]


def run(value: str, _: Values) -> list[str]:
    folder, checkpoint = split_checkpoint(value)
    return [f"run={folder}", *([f"checkpoint={checkpoint}"] if checkpoint else [])]


def of_cloud(key: str) -> Convert:
    return lambda value, values: [f"{key}={as_text(value)}"] if "cloud-provider" in values else []


def region(value: str, values: Values) -> list[str]:
    return [f"cloud.region={as_text(value)}"] if values.get("cloud-provider") == "s3" else []


FLAGS = (
    Flag("dataset-id", "data.source={text}", required=True),
    Flag("text-column", "data.text_column={text}", "text"),
    Flag("dataset-config", "data.reading.config={text}"),
    Flag("split", "data.reading.split={text}", "train"),
    Flag("val-split", "data.validation.split={text}"),
    Flag("max-train-examples", "data.max_train_examples={}"),
    Flag("max-val-examples", "data.validation.max_examples={}"),
    Flag(
        "auto-vocab-size",
        "data.tokenizer.vocab_size=auto",
        note="data.tokenizer.vocab_size_strategy=length is the old rule",
        kind="switch",
    ),
    Flag(
        "vocab-size",
        lambda value, values: (
            [] if "auto-vocab-size" in values else [f"data.tokenizer.vocab_size={value}"]
        ),
        "16000",
        reason="--auto-vocab-size chooses",
    ),
    Flag("min-vocab-size", "data.tokenizer.min_vocab_size={}", "5000"),
    Flag("max-vocab-size", "data.tokenizer.max_vocab_size={}", "50000"),
    Flag("tokenizer-train-examples", "data.tokenizer.train_examples={}", "10000"),
    Flag("retrain-tokenizer", "data.tokenizer.force_retrain=true", kind="switch"),
    Flag("tokenizer-path", "data.tokenizer.path={text}", "(tokenizer.json of the output folder)"),
    Flag(
        "model-preset",
        choice("model-preset", {size: f"model/size={size}" for size in SIZES}),
        example="tiny",
    ),
    Flag("d-model", SHAPE, "512", reason=PRESET_WINS),
    Flag("num-layers", SHAPE, "6", reason=PRESET_WINS),
    Flag("num-heads", SHAPE, "8", reason=PRESET_WINS),
    Flag("d-ff", SHAPE, "2048", reason=PRESET_WINS),
    Flag("seq-len", "data.seq_len={}", "256"),
    Flag("dropout-rate", "model.dropout={}", "0.1"),
    Flag("activation", feed_forward, "gelu", reason="no effect without --no-swiglu, there too"),
    Flag("no-rmsnorm", "model.norm_type=layer", kind="switch"),
    Flag("no-swiglu", plain_feed_forward, kind="switch"),
    Flag("no-rope", "model.position_embedding=learned", kind="switch"),
    Flag(
        "use-lora",
        adapter,
        note="all projections of attention and feed-forward layers; there the head",
        kind="switch",
    ),
    Flag(
        "lora-rank",
        lambda value, values: adapter(value, values) if "use-lora" in values else [],
        "8",
        reason="no effect without --use-lora, there too",
    ),
    Flag("epochs", "trainer.epochs={}", "3"),
    Flag("batch-size", BATCH, "32", "data.batch_size counts the rows of an optimizer step"),
    Flag("gradient-accumulation-steps", BATCH, "1", example="4"),
    Flag("learning-rate lr", "trainer.learning_rate={}", "5e-4"),
    Flag("weight-decay", "trainer.optimizer.weight_decay={}", "0.01"),
    Flag("warmup-steps", "trainer.schedule.warmup={}", "500"),
    Flag("grad-clip", null_if_zero("trainer.step.max_grad_norm"), "1.0"),
    Flag("no-streaming", "data.streaming=false", note="it failed there", kind="switch"),
    Flag("shuffle-buffer-size", "data.shuffle.window={}", "10000"),
    Flag("stride", "data.packing.stride={}"),
    Flag(
        "use-mixed-precision",
        "trainer.step.dtype=bfloat16",
        note=f"it did nothing there; {BFLOAT16}",
        kind="switch",
    ),
    Flag("output-dir", "hydra.run.dir={text}", "output_advanced"),
    Flag("log-every", "trainer.log_every={}", "10"),
    Flag("save-every", save_every, "1000"),
    Flag("eval-every", "trainer.eval_every={} trainer.eval_batches=50", "500"),
    Flag(
        "resume-from",
        resume,
        note=f"{OWN_CHECKPOINTS}; there it loaded the weights only, as model.init_from= does",
        example="output_advanced/checkpoint_step_1000",
    ),
    Flag(
        "cloud-provider",
        choice("cloud-provider", {"s3": "cloud=s3", "gcs": "cloud=gcs", "azure": "cloud=azure"}),
        example="s3",
    ),
    Flag("cloud-bucket", of_cloud("cloud.bucket"), reason=NO_CLOUD, example="checkpoints"),
    Flag(
        "cloud-region", region, reason="only --cloud-provider s3 has regions", example="eu-west-1"
    ),
    Flag("cloud-prefix", of_cloud("cloud.prefix"), "(checkpoints)", reason=NO_CLOUD),
    Flag("azure-sas-token", reason=f"{SECRET}AZURE_STORAGE_SAS_TOKEN"),
    Flag("azure-account-name", reason=f"{SECRET}AZURE_STORAGE_ACCOUNT_NAME"),
    Flag("seed", "seed={}", "42"),
)
GENERATE = (
    Flag(
        "checkpoint",
        run,
        note=OWN_CHECKPOINTS,
        example="output_advanced/best_checkpoint",
        required=True,
    ),
    Flag("prompt", "prompt={}"),
    Flag("tokenizer-path", reason="the tokenizer is that of the run"),
    Flag("max-length", "max_tokens={}", "100"),
    Flag("temperature", "temperature={}", "0.8"),
    Flag("top-k", "top_k={}", "50"),
    Flag("top-p", "top_p={}", "1.0", "there it was never used"),
    Flag("seed", "seed={}", "42"),
)
PHANTOMS = (
    Flag(
        "streaming",
        reason="there never was such a flag; text is streamed there and here, data.streaming=false keeps it in memory",
    ),
)
FIXED = (
    "trainer/schedule=cosine",
    "trainer.schedule.final_lr_ratio=0.1",
    "model.tie_embeddings=false",
)
BASE = ("model=transformer", "data=streaming", "trainer=optimized")
TITLE = "The streaming trainer"
PROGRAMS = (
    Program(TITLE, "train_advanced", base=BASE, fixed=FIXED, flags=FLAGS, phantoms=PHANTOMS),
    Program(TITLE, "generate_text", to="generate", flags=GENERATE),
)
