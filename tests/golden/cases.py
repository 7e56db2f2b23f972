"""The table of runs, and what was renamed since their reference commits."""

from dataclasses import dataclass
from typing import Any

LAST_STEP_TRAINS = "5229f459"  # Schedules reach their end value after the last step, not in it.
ROWS_NUMBERED = (
    "c0c59a26"  # The order of documents and conversations follows the numbers of their rows.
)
ORDERED_BY_ROW = ("streaming", "instruct")

# New key or group -> the one that stood in its place at the reference commits. All keys below it move with it.
RENAMED: dict[str, str] = {
    "data.target": "data.label_column",
    "data.bins": "data.numbers.bins",
}

# Keys and groups that no longer exist, without an effect on any case.
REMOVED: set[str] = {
    "callbacks.growth.on_error",
    "data.batching.tokens",
    "data.categorical",
    "data.labels",
    "data.numbers",
    "data.order.once_per_epoch",
    "data.template",
    "data.tokenizer.force_retrain",
    "data.tokenizer.vocab_size_strategy",
    "data.vocabulary",
    "model.no_rope_layers",
    "trainer.async_steps",
    "trainer.loss.feature_matching",
    "trainer.loss.losses.distillation.feature_matching",
    "trainer.step.cpu_streams",
}

COMMON = """
    tracking=none model/size=nano trainer.max_steps=20 trainer.eval_every=10 trainer.log_every=1
    callbacks.csv.path=metrics.csv ~callbacks.report ~callbacks.memory_monitor
"""
LABELLED = "data.batch_size=8 data.seq_len=64 data.baselines=false"
DATA = {
    "titanic": f"data=titanic data.augment.copies=1 {LABELLED}",
    "text_classification": f"""
        data=text_classification data.source=inputs/texts.csv data/tokenizer=bpe_1024 {LABELLED}
    """,
    "table": f"data=table data.source=inputs/cars.csv data/tokenizer=bpe_1024 {LABELLED}",
    "streaming": """
        data=streaming data.source=inputs/stories.jsonl data/tokenizer=bpe_1024 data.batch_size=4
        data.seq_len=64
    """,
    "instruct": """
        data=instruct data.source=inputs/conversations.jsonl data/tokenizer=bpe_1024 data.batch_size=4
        data.seq_len=96
    """,
}
GROWTH = (
    "callbacks.growth.operations=["
    "{id:wider,op:widen,feed_forward:640,when:{or_steps:4},then:evaluate},"
    "{id:deeper,op:stack,map:[0,1,2,3,4,5,5],when:{or_steps:4}},"
    "{id:slower,op:set_learning_rate,learning_rate:1e-4,when:{or_steps:2}},"
    "{id:warmer,op:rewarm,steps:4,when:{or_steps:2}}]"
)
CURRICULUM = """
    data/order=curriculum data.order.keep=1 data.order.alpha=[[0,1.0],[0.5,0.3]] data.order.pool=64 data.order.rescore_every=4
"""
STAGES = """
    data/order=staged data.source=roneneldan/TinyStories data.mixture={inputs/stories.jsonl:3,inputs/tales.jsonl:1}
    data.order.stages=[[0,{inputs/stories.jsonl:1}],[0.5,{inputs/stories.jsonl:1,inputs/tales.jsonl:3}]]
"""
FAST_CHECKPOINTS = "checkpointing.every_steps=4"


@dataclass(frozen=True)
class Case:
    """A run, in the keys of its reference commit.

    Args:
        overrides: besides those of COMMON, of the data and of the trainer.
        teacher: overrides of a run before this one, which learns from it; "" if there is none.
        native: with the native kernels, or without any.
        processes: that share the run.
        killed: by SIGKILL after its first checkpoint, and resumed.
    """

    name: str
    model: str
    data: str
    trainer: str
    overrides: str = ""
    teacher: str = ""
    native: bool = False
    processes: int = 1
    killed: bool = False

    @property
    def reference(self) -> str:
        """The commit whose values are right."""
        return ROWS_NUMBERED if self.data in ORDERED_BY_ROW else LAST_STEP_TRAINS

    def stages(self) -> "list[Stage]":
        """The runs, in their order; the last one is compared."""
        common = f"{COMMON} {DATA[self.data]}"
        training = f"model={self.model} trainer={self.trainer} {self.overrides}"
        if not self.teacher:
            return [Stage(self.name, merge(common, training))]
        teacher = f"{self.name}_teacher"
        first = Stage(teacher, merge(common, f"trainer=simple {self.teacher}"))
        student = Stage(self.name, merge(common, f"{training} trainer.teachers=[{teacher}]"))
        return [first, student]


@dataclass(frozen=True)
class Stage:
    """One run of a case: its folder, and its overrides without that folder."""

    folder: str
    overrides: list[str]


def merge(*texts: str) -> list[str]:
    """The overrides in the texts; the last one of each key."""
    overrides = " ".join(texts).split()
    return list({override.split("=")[0]: override for override in overrides}.values())


FAMILIES = {"bert": "bert", "cnn": "cnn_hybrid", "decoder": "transformer"}


def case(name: str, trainer: str = "simple", overrides: str = "", **fields: Any) -> Case:
    """A case whose name tells the model and the data, and whether it is native or killed."""
    family, data, *words = name.split("_")
    data = {"text": "text_classification"}.get(data, data)
    flags = {flag: flag in words for flag in ("native", "killed")}
    return Case(name, FAMILIES[family], data, trainer, overrides, **flags, **fields)


CASES = [
    # Encoders
    case("bert_titanic"),
    case("bert_titanic_native"),
    case("bert_titanic_optimized", "optimized", "trainer.step.accumulate=2"),
    case("bert_titanic_optimized_native", "optimized"),
    case("bert_titanic_ema", overrides="trainer.ema_decay=0.9"),
    case("bert_titanic_lora", overrides="model/adapter=lora"),
    case("bert_titanic_killed", overrides=FAST_CHECKPOINTS),
    case("bert_titanic_processes", processes=2),
    case("bert_titanic_distill", "distill", teacher="model=bert"),
    case(
        "bert_titanic_distill_from_cnn_native",
        "distill",
        "trainer/loss=distill_sum",
        teacher="model=cnn_hybrid",
    ),
    case(
        "bert_text_rotary",
        overrides="model.position_embedding=rope model.mlp_type=swiglu model.pre_norm=true",
    ),
    case(
        "bert_text_token_budget_lion",
        "optimized",
        "data/batching=token_budget trainer/optimizer=lion trainer.optimizer.layer_decay=0.9",
    ),
    case("bert_table", "optimized", "data.target=sold trainer/loss=weighted"),
    case("bert_streaming"),
    case("bert_streaming_native", "optimized"),
    # Encoders with convolutions
    case("cnn_titanic_frozen", overrides="model.freeze=[embedding]"),
    case("cnn_titanic_native", "optimized"),
    case("cnn_text"),
    case("cnn_table_focal", overrides="data.target=sold trainer/loss=focal"),
    case("cnn_table_regression", overrides="data.target=price trainer/loss=huber"),
    case("cnn_streaming", "optimized"),
    # Decoders
    case("decoder_titanic", overrides="trainer.label_smoothing=0.1"),
    case("decoder_text_native", "optimized"),
    case("decoder_table_regression", overrides="data.target=price"),
    case("decoder_streaming"),
    case("decoder_streaming_native", "optimized"),
    case(
        "decoder_streaming_muon",
        "optimized",
        "data/tokenizer=characters trainer/optimizer=muon trainer/schedule=wsd",
    ),
    case("decoder_streaming_growth", "optimized", GROWTH),
    case("decoder_streaming_growth_killed", overrides=f"{GROWTH} checkpointing.every_steps=10"),
    case("decoder_streaming_curriculum", overrides=CURRICULUM),
    case("decoder_streaming_stages", overrides=STAGES),
    case(
        "decoder_streaming_killed_native",
        "optimized",
        f"trainer.ema_decay=0.9 trainer.step.accumulate=2 {FAST_CHECKPOINTS}",
    ),
    case("decoder_streaming_distill", "distill", teacher="model=transformer"),
    case("decoder_streaming_shards", overrides="trainer.parallel=fsdp", processes=2),
    case("decoder_instruct"),
    case(
        "decoder_instruct_lora_native",
        "optimized",
        "model/adapter=lora model.adapter.dropout=0.1",
    ),
]
