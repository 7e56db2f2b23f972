"""The GPT trainer and its rewrite: `train.py [config.py] [--key=value ...]`, `train_refactored.py`, `sample.py`."""

from mlxlab.cli.translate.flags import (
    BFLOAT16,
    BatchFlags,
    Flag,
    Program,
    Values,
    as_text,
    choice,
    integer,
    is_true,
    null_if_zero,
    number,
)
from mlxlab.cli.translate.growth_schedule import inline_schedule, schedule_file
from mlxlab.cli.translate.shape import ShapeFlags

SHAPE = ShapeFlags(("n-embd", 768), ("n-layer", 12), ("n-head", 12), ("n-hidden", None))
BATCH = BatchFlags("batch-size", 12, "gradient-accumulation-steps", 40, per_process=False)
DTYPES = {
    "bfloat16": "trainer.step.dtype=bfloat16",
    "float32": "trainer.step.dtype=float32",
    "float16": "",
}
NO_GPT2 = "GPT-2 is no family here; model.pretrained= takes weights of the Llama layout"
OWN_BATCH = (
    "data.batch_size counts the rows of an optimizer step, which trainer.step.accumulate divides"
)
BY_MACHINE = "MLX takes the GPU where there is one"
COUNTED = "data.vocabulary counts the training text itself"
TEXT = "the source is text, not token files: data.source=<files, or a hub id>"
NO_DECAY = "without decay_lr the rate was constant from the first step"


def shape(value: str, values: Values) -> list[str]:
    """The shape; `None` of n_hidden is four times the width."""
    return SHAPE(
        value, {name: text for name, text in values.items() if (name, text) != ("n-hidden", "None")}
    )


def init_from(value: str, values: Values) -> list[str]:
    return (
        [f"hydra.run.dir={as_text(values.get('out-dir', 'out'))}", "resume=auto"]
        if value == "resume"
        else []
    )


def project(value: str, values: Values) -> list[str]:
    return (
        [f"tracking.wandb.project={as_text(value)}"]
        if is_true(values.get("wandb-log", "False"))
        else []
    )


def betas(_: str, values: Values) -> list[str]:
    return [
        f"trainer.optimizer.betas=[{values.get('beta1', '0.9')}, {values.get('beta2', '0.95')}]"
    ]


def decays(values: Values) -> bool:
    return is_true(values.get("decay-lr", "True"))


def schedule(value: str, _: Values) -> list[str]:
    if is_true(value):
        return ["trainer/schedule=cosine"]
    return ["trainer/schedule=constant", "trainer.schedule.warmup=0"]


def warmup(value: str, values: Values) -> list[str]:
    return [f"trainer.schedule.warmup={value}"] if decays(values) else []


def final_rate(value: str, values: Values) -> list[str]:
    """The minimum rate as a share of the peak."""
    peak = number(values.get("learning-rate", "6e-4"), "learning_rate")
    share = number(value, "min_lr") / peak if peak else 1.0
    return [f"trainer.schedule.final_lr_ratio={min(1.0, share):.6g}"] if decays(values) else []


def compile_mode(value: str, _: Values) -> list[str]:
    return [f"trainer.step.compile={'auto' if is_true(value) else 'never'}"]


def adapter(value: str, values: Values) -> list[str]:
    """One rank for all adapted layers, the larger one of attention and embedding."""
    flags = {"attention": "attn-lora-rank", "embedding": "embedding-rank"}
    if values.get("embedding-mode", "standard") != "lora":
        del flags["embedding"]
    ranks = {target: integer(values.get(flag, "0"), flag) for target, flag in flags.items()}
    adapted = {target: rank for target, rank in ranks.items() if rank > 0}
    if not adapted:
        return []
    targets = ", ".join(adapted)
    return [
        "model/adapter=lora",
        f"model.adapter.rank={max(adapted.values())}",
        f"model.adapter.targets=[{targets}]",
    ]


def adapter_scale(value: str, values: Values) -> list[str]:
    return [f"model.adapter.alpha={value}"] if adapter("", values) else []


def prompt(value: str, _: Values) -> list[str]:
    """A text, or a file of prompts."""
    if value.startswith("FILE:"):
        return [f"prompts={value.removeprefix('FILE:')}"]
    return ["prompt=" + value.replace("\n", "\\n")]


SCHEDULE = "an empty schedule; others become callbacks.growth.operations"
ADAPTER = "no adapters with a rank of 0"
FLAGS = (
    Flag("out-dir", "hydra.run.dir={text}", "out"),
    Flag("log-dir", default="logs", reason="logs are in the run folder"),
    Flag("file-logging", default="True", reason="the journal of the run folder is always written"),
    Flag(
        "wandb-log",
        choice("wandb-log", {"True": "tracking=wandb", "False": ""}),
        "False",
        note="in place of MLflow; 'tracking=[mlflow,wandb]' is both, tracking.wandb.mode=offline needs no account",
        reason="W&B is off; MLflow records every run unless tracking=none",
        example="True",
    ),
    Flag("wandb-project", project, "owt", reason="without wandb_log there was no project"),
    Flag("wandb-run-name", "name={text}", "gpt2"),
    Flag(
        "init-from",
        init_from,
        "scratch",
        reason=f"scratch is the default; {NO_GPT2}",
        note="a run of mlxlab; checkpoints of the old program are pickles, which nothing here reads",
        example="resume",
    ),
    Flag("eval-interval", "trainer.eval_every={}", "2000"),
    Flag("eval-iters", "trainer.eval_batches={}", "200"),
    Flag("log-interval", "trainer.log_every={}", "1"),
    Flag("eval-only", default="False", reason="mlxlab evaluate run=<run folder>"),
    Flag(
        "always-save-checkpoint",
        default="True",
        reason="every evaluation saves, the best and the last are kept",
    ),
    Flag("dataset", default="fineweb10B", reason=TEXT),
    Flag("train-shard-filenames", reason=TEXT),
    Flag("num-train-shards", default="103", reason=TEXT),
    Flag("gradient-accumulation-steps", BATCH, "40", OWN_BATCH),
    Flag("batch-size", BATCH, "12", OWN_BATCH),
    Flag("block-size", "data.seq_len={}", "1024"),
    Flag("n-layer", shape, "12"),
    Flag("n-head", shape, "12"),
    Flag("n-embd", shape, "768"),
    Flag("n-hidden", shape, "None"),
    Flag("dropout", "model.dropout={}", "0.0"),
    Flag("bias", default="False", reason="layers have no biases here"),
    Flag(
        "use-rotary-embeddings",
        choice(
            "use-rotary-embeddings",
            {"True": "model.position_embedding=rope", "False": "model.position_embedding=learned"},
        ),
        "False",
    ),
    Flag("rotary-base", "model.rope_theta={}", "10000.0"),
    Flag(
        "rotary-max-position-embeddings",
        default="2048",
        reason="rotary positions have no limit here",
    ),
    Flag("learning-rate", "trainer.learning_rate={}", "6e-4"),
    Flag("max-iters", "trainer.epochs=null trainer.max_steps={}", "600000"),
    Flag("weight-decay", "trainer.optimizer.weight_decay={}", "0.1"),
    Flag("beta1", betas, "0.9"),
    Flag("beta2", betas, "0.95"),
    Flag("grad-clip", null_if_zero("trainer.step.max_grad_norm"), "1.0"),
    Flag("decay-lr", schedule, "True"),
    Flag("warmup-iters", warmup, "2000", reason=NO_DECAY),
    Flag(
        "lr-decay-iters",
        default="600000",
        reason="the schedule ends with the run: trainer.max_steps",
    ),
    Flag("min-lr", final_rate, "6e-5", reason=NO_DECAY),
    Flag("device", default="cuda", reason=BY_MACHINE),
    Flag(
        "dtype",
        choice("dtype", DTYPES),
        "(bfloat16)",
        BFLOAT16,
        "float16 would need a loss scale; bfloat16 does not",
    ),
    Flag("compile", compile_mode, "True"),
    Flag("backend", default="nccl", reason="mlxlab launch backend=ring, mpi, nccl or jaccl"),
    Flag("embedding-mode", adapter, "standard", reason=ADAPTER),
    Flag("embedding-rank", adapter, "0", reason=ADAPTER),
    Flag("attn-lora-rank", adapter, "0", reason=ADAPTER),
    Flag("lora-alpha", adapter_scale, "1.0", reason=ADAPTER),
    Flag("scaling-schedule-file", schedule_file, "(None)", "", SCHEDULE),
    Flag("scaling-schedule", inline_schedule, "([])", "", SCHEDULE),
    Flag(
        "target-architecture-config",
        default="None",
        reason="`--dry-run` prints the model after each operation",
    ),
    Flag(
        "ignored-outlayers-sum",
        default="0.01",
        reason="`mlxlab info tokens` lists outliers by quartiles",
    ),
    Flag("shrunken-vocab-size", "data.vocabulary.size={}", "(None)"),
    Flag("vocab-remapping-file", default="None", reason=COUNTED),
    Flag("RARE_TOKEN_ID", default="None", reason=COUNTED),
)
SAMPLE = (
    Flag("out-dir", "run={}", "out", always=True),
    Flag("init-from", default="resume", reason=f"the weights are those of run=; {NO_GPT2}"),
    Flag("start", prompt, "\n", always=True),
    Flag("num-samples", default="10", reason="one text per prompt; prompts=<file> takes several"),
    Flag("max-new-tokens", "max_tokens={}", "500"),
    Flag("temperature", "temperature={}", "0.8"),
    Flag("top-k", "top_k={}", "200"),
    Flag("seed", "seed={}", "1337"),
    Flag("device", default="cuda", reason=BY_MACHINE),
    Flag("dtype", default="bfloat16", reason="the model computes as it was trained"),
    Flag("compile", default="False", reason="generation needs no compiling"),
)
MAPPING = (Flag("mapping-json"), Flag("output-path"))
BASE = ("model=transformer", "data=streaming", "trainer=optimized")
FIXED = ("model.norm_type=layer", "model.mlp_type=gelu", "model.tie_embeddings=true")
REWRITE = ("callbacks.early_stopping.patience=10", "callbacks.early_stopping.min_delta=1e-4")
START = ("seed=1337", "data/order=curriculum")
TITLE = "The GPT trainer"


def program(script: str, fixed: tuple[str, ...]) -> Program:
    return Program(TITLE, script, base=BASE, fixed=fixed, flags=FLAGS, file_format="python")


PROGRAMS = (
    program("train", (*FIXED, *START)),
    program("train_refactored", (*FIXED, "seed=1337", *REWRITE)),
    Program(TITLE, "sample", to="generate", flags=SAMPLE, file_format="python"),
    Program(
        TITLE,
        "analyze_tokens",
        to="",
        reason=f"{COUNTED}; `mlxlab info tokens` shows the counts",
    ),
    Program(TITLE, "create_remapping_tensor", to="", flags=MAPPING, reason=COUNTED),
)
