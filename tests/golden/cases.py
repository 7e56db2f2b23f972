"""The table of runs, and what was renamed since their reference commits."""

from dataclasses import dataclass

BEFORE_ISSUE_19 = "7b46dabc"
LAST_STEP_TRAINS = "5229f459"
ROWS_NUMBERED = "c0c59a26"
ORDERED_BY_ROW = ("streaming", "instruct")

# New key or group -> the one that stood in its place at the reference commits. All keys below it move with it.
RENAMED: dict[str, str] = {
    "data.target": "data.label_column",
    "data.bins": "data.numbers.bins",
}

# Keys and groups that no longer exist, without an effect on any case.
REMOVED: set[str] = {
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

    @property
    def reason(self) -> str:
        """Why that is not the first one."""
        if self.data in ORDERED_BY_ROW:
            return "the order of documents and conversations follows the numbers of their rows"
        return "schedules reach their end value after the last step, not in it"

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


CASES = [
    # Encoders
    Case("bert_titanic", "bert", "titanic", "simple"),
    Case("bert_titanic_native", "bert", "titanic", "simple", native=True),
    Case("bert_titanic_optimized", "bert", "titanic", "optimized", "trainer.step.accumulate=2"),
    Case("bert_titanic_optimized_native", "bert", "titanic", "optimized", native=True),
    Case("bert_titanic_ema", "bert", "titanic", "simple", "trainer.ema_decay=0.9"),
    Case("bert_titanic_lora", "bert", "titanic", "simple", "model/adapter=lora"),
    Case("bert_titanic_killed", "bert", "titanic", "simple", FAST_CHECKPOINTS, killed=True),
    Case("bert_titanic_processes", "bert", "titanic", "simple", processes=2),
    Case("bert_titanic_distill", "bert", "titanic", "distill", teacher="model=bert"),
    Case(
        "bert_titanic_distill_from_cnn_native",
        "bert",
        "titanic",
        "distill",
        "trainer/loss=distill_sum",
        teacher="model=cnn_hybrid",
        native=True,
    ),
    Case(
        "bert_text_rotary",
        "bert",
        "text_classification",
        "simple",
        "model.position_embedding=rope model.mlp_type=swiglu model.pre_norm=true",
    ),
    Case(
        "bert_text_token_budget_lion",
        "bert",
        "text_classification",
        "optimized",
        "data/batching=token_budget trainer/optimizer=lion trainer.optimizer.layer_decay=0.9",
    ),
    Case("bert_table", "bert", "table", "optimized", "data.target=sold trainer/loss=weighted"),
    Case("bert_streaming", "bert", "streaming", "simple"),
    Case("bert_streaming_native", "bert", "streaming", "optimized", native=True),
    # Encoders with convolutions
    Case("cnn_titanic_frozen", "cnn_hybrid", "titanic", "simple", "model.freeze=[embedding]"),
    Case("cnn_titanic_native", "cnn_hybrid", "titanic", "optimized", native=True),
    Case("cnn_text", "cnn_hybrid", "text_classification", "simple"),
    Case("cnn_table_focal", "cnn_hybrid", "table", "simple", "data.target=sold trainer/loss=focal"),
    Case(
        "cnn_table_regression",
        "cnn_hybrid",
        "table",
        "simple",
        "data.target=price trainer/loss=huber",
    ),
    Case("cnn_streaming", "cnn_hybrid", "streaming", "optimized"),
    # Decoders
    Case("decoder_titanic", "transformer", "titanic", "simple", "trainer.label_smoothing=0.1"),
    Case("decoder_text_native", "transformer", "text_classification", "optimized", native=True),
    Case("decoder_table_regression", "transformer", "table", "simple", "data.target=price"),
    Case("decoder_streaming", "transformer", "streaming", "simple"),
    Case("decoder_streaming_native", "transformer", "streaming", "optimized", native=True),
    Case(
        "decoder_streaming_muon",
        "transformer",
        "streaming",
        "optimized",
        "data/tokenizer=characters trainer/optimizer=muon trainer/schedule=wsd",
    ),
    Case("decoder_streaming_growth", "transformer", "streaming", "optimized", GROWTH),
    Case(
        "decoder_streaming_growth_killed",
        "transformer",
        "streaming",
        "simple",
        f"{GROWTH} checkpointing.every_steps=10",
        killed=True,
    ),
    Case("decoder_streaming_curriculum", "transformer", "streaming", "simple", CURRICULUM),
    Case("decoder_streaming_stages", "transformer", "streaming", "simple", STAGES),
    Case(
        "decoder_streaming_killed_native",
        "transformer",
        "streaming",
        "optimized",
        f"trainer.ema_decay=0.9 trainer.step.accumulate=2 {FAST_CHECKPOINTS}",
        native=True,
        killed=True,
    ),
    Case(
        "decoder_streaming_distill",
        "transformer",
        "streaming",
        "distill",
        teacher="model=transformer",
    ),
    Case(
        "decoder_streaming_shards",
        "transformer",
        "streaming",
        "simple",
        "trainer.parallel=fsdp",
        processes=2,
    ),
    Case(
        "decoder_instruct",
        "transformer",
        "instruct",
        "simple",
    ),
    Case(
        "decoder_instruct_lora_native",
        "transformer",
        "instruct",
        "optimized",
        "model/adapter=lora model.adapter.dropout=0.1",
        native=True,
    ),
]
