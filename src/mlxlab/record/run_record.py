"""`run.json`: every fact of a run, as typed data.

Times are seconds since 1970, durations are seconds. A number that is not finite is null. The keys
of metrics have no split: a `SplitResult` says which rows they are of.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, get_args

from annotated_types import Ge, Le, MaxLen, MinLen

from mlxlab.schema.constraints import Count, Size

FORMAT = 5
MAX_JOBS = 100_000  # A sweep has at most so many.
TOO_LONG = "are longer than data.seq_len="  # Part of a warning: `Data` has the number of rows.
Status: TypeAlias = Literal["running", "finished", "failed", "interrupted", "killed", "paused"]
STATUSES: tuple[Status, ...] = get_args(Status)
TaskKind: TypeAlias = Literal[
    "classification", "multi_label", "regression", "language_modelling", ""
]
Split: TypeAlias = Literal["valid", "test", "out_of_fold"]
Metrics: TypeAlias = dict[str, float | None]
Interval: TypeAlias = tuple[float, float]
Names: TypeAlias = Annotated[list[str], MaxLen(10_000)]
ProcessId: TypeAlias = Annotated[int, Ge(1), Le(2**31 - 1)]
Time: TypeAlias = Annotated[float, Ge(0), Le(253_402_300_799)]  # until the year 9999
Seconds: TypeAlias = Annotated[float, Ge(0), Le(10**12)]


@dataclass
class Attempt:
    """One process that worked on the run.

    Attributes:
        status: killed for one that could not record its end.
        trained: false if it ended before its first step.
    """

    host: str
    pid: ProcessId
    process_start: Time
    start: Time
    status: Status = "running"
    trained: bool = True
    end: Time | None = None
    exit_code: int | None = None
    error: str = ""
    warnings: Names = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The seconds that it took; 0 for one that has not ended."""
        return 0.0 if self.end is None else max(self.end - self.start, 0.0)


@dataclass
class JobIdentity:
    """The job of a sweep that a run is.

    Attributes:
        overrides: those that make it the job it is.
        budget: at which a search pauses it; null at the end of its run.
    """

    number: Annotated[int, Ge(0), Le(MAX_JOBS - 1)]
    overrides: Annotated[list[str], MaxLen(1000)]
    budget: Size | None = None


@dataclass
class Continuation:
    """A command line that continued the run.

    Attributes:
        overrides: as typed, `hydra.run.dir` included; empty if `forked`.
        step: of the checkpoint from which it continued.
        rounds: of distillation that were complete; such a run has no step of its own.
        model: keys of the model that it changed -> (before, after).
        forked: it began the run with a checkpoint of another one, or continued that other one.
    """

    overrides: Names
    step: Count | None = None
    rounds: Count | None = None
    model: dict[str, tuple[object, object]] = field(default_factory=dict)
    forked: bool = False


@dataclass
class Command:
    """What was typed: first by the command that began the run, and by all attempts together."""

    first: Names = field(default_factory=list)
    overrides: Names = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    continued: list[Continuation] = field(default_factory=list)


@dataclass
class Code:
    """What ran: `dirty` says whether the commit had uncommitted changes, null is unknown."""

    commit: str = ""
    dirty: bool | None = None
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    kernels: str = ""
    is_locked: bool = False  # The run has a run.lock.


@dataclass
class Parent:
    """A source of the weights: kind is checkpoint, pretrained, init_from or teacher."""

    kind: str
    of: str


@dataclass
class Overlap:
    """Rows that occur in two splits, and whether they were left out of one."""

    rows: str
    left_out: bool


@dataclass
class Data:
    """The data set and its task. `overlaps` is null where nobody looked for repeated rows.

    The keys of `rows` and `tokens` are splits.
    """

    name: str = ""
    task: TaskKind = ""
    source: str = ""
    masked: bool = False
    label: str = ""
    positive_class: str = ""
    columns: Names = field(default_factory=list)
    classes: Names = field(default_factory=list)
    num_classes: Count = 0
    rows: dict[str, Count] = field(default_factory=dict)  # The rows of a text are its documents.
    tokens: dict[str, Count] = field(default_factory=dict)  # Only a text has tokens.
    estimated: Names = field(default_factory=list)  # Splits whose sizes are estimates.
    loss_on: str = ""  # This part of a conversation has a loss.
    has_chat_template: bool = False
    seq_len: Count = 0
    fold: Count | None = None
    folds: Count | None = None
    measured_rows: Count = 0
    truncated_rows: Count = 0
    left_out_rows: Count = 0
    overlaps: list[Overlap] | None = None
    tokenizer: str = ""
    vocab_size: Count = 0
    fingerprint: str = ""
    tokenizer_fingerprint: str = ""
    messages: Names = field(default_factory=list)


@dataclass
class Model:
    """Sizes are those of the trained model: pretrained weights and growth have their own."""

    name: str = ""
    size: str = ""  # Empty where no model/size was chosen.
    adapter: str = ""
    parameters: Count = 0
    trainable: Count = 0
    shape: dict[str, Count] = field(default_factory=dict)


@dataclass
class Training:
    """How long and how it was trained.

    Attributes:
        limit: the key of the trainer that ends the run.
        is_resized: the batch size changed during the run.
        evaluations: (step, objective).
        curve: (step, metrics by key with their split).
        best: the best value of the objective.
        final: the metrics of the last evaluation by key with their split.
        speed: tokens per second at the end.
        final_state: a digest of weights, optimizer and data; empty until the run has ended or was stopped.
        events: (step, what changed).
    """

    objective: str = ""
    steps: Count = 0
    best_step: Count = 0
    best: float | None = None
    final: Metrics = field(default_factory=dict)
    speed: float | None = None
    tokens: Count = 0
    batches_per_epoch: Count = 0
    is_resized: bool = False
    limit: str = "epochs"
    learning_rate: float = 0.0
    seconds: Seconds = 0.0
    nonfinite_steps: Count = 0
    rollbacks: Count = 0
    evaluations: list[tuple[Count, float | None]] = field(default_factory=list)
    curve: list[tuple[Count, Metrics]] = field(default_factory=list)
    events: list[tuple[Count, str]] = field(default_factory=list)
    final_state: str = ""


@dataclass
class ClassResult:
    """How well one class is predicted."""

    name: str
    precision: float
    recall: float
    f1: float
    rows: Count


@dataclass
class Mistake:
    """A wrong row by its confidence, or a row with a large error."""

    row: str
    text: str
    true: str
    predicted: str
    score: float


@dataclass
class Diagnostics:
    """What plots need of the predictions: bounded, whatever the number of rows.

    Attributes:
        names: classes of `confusion`, whose rows are the true ones.
        reliability: (confidence, share that is right, rows) of each bin.
        precision_recall: (recall, precision) by falling threshold.
        predicted: (true, predicted) values.
    """

    names: Names = field(default_factory=list)
    confusion: list[list[Count]] = field(default_factory=list)
    reliability: list[tuple[float, float, Count]] = field(default_factory=list)
    precision_recall: list[tuple[float, float]] = field(default_factory=list)
    positive_share: float | None = None
    predicted: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class SplitResult:
    """The best weights on the rows of a split, with the baselines on the same rows.

    Attributes:
        rows: 0 where they were not counted.
        gains: by baseline: how much better the main metric is; negative is worse.
        never_predicted: classes that occur, with their numbers of rows.
    """

    split: Split
    rows: Count
    metrics: Metrics
    intervals: dict[str, Interval] = field(default_factory=dict)
    baselines: dict[str, Metrics] = field(default_factory=dict)
    gains: dict[str, Interval] = field(default_factory=dict)
    never_predicted: dict[str, Count] = field(default_factory=dict)
    classes: Annotated[list[ClassResult], MaxLen(10_000)] = field(default_factory=list)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)

    def __post_init__(self) -> None:
        """Leaves out the intervals of metrics without a value, which a stranger may have written."""
        known = {name for name, value in self.metrics.items() if value is not None}
        self.intervals = {name: each for name, each in self.intervals.items() if name in known}


@dataclass
class Sample:
    """A text that a language model generated, and why it ended."""

    prompt: str
    text: str
    end: str


@dataclass
class Verification:
    """What `verify` or `reproduce` found; `difference` is empty where all was equal."""

    kind: Literal["verify", "reproduce"]
    up_to_step: Count
    difference: str = ""


@dataclass
class Evaluation:
    """The final evaluation of a run.

    Attributes:
        main_metric: by which models are compared with baselines.
        results: validation rows first.
        counted_tokens: of the training text in which n-gram baselines counted.
        models: student and teacher on the validation rows.
        mistakes: of the validation rows, and of training rows out of fold.
    """

    main_metric: str = ""
    results: Annotated[list[SplitResult], MaxLen(3)] = field(default_factory=list)
    counted_tokens: Count = 0
    models: dict[str, Metrics] = field(default_factory=dict)
    mistakes: Annotated[list[Mistake], MaxLen(100)] = field(default_factory=list)

    def keyed_metrics(self, *splits: Split) -> Metrics:
        """The metrics of some splits by their keys, `valid/accuracy`."""
        metrics: Metrics = {}
        for result in self.results:
            if result.split in splits:
                metrics |= {
                    f"{result.split}/{name}": value for name, value in result.metrics.items()
                }
        return metrics


@dataclass
class RunRecord:
    """Every fact of a run.

    Attributes:
        has_begun: an attempt reached its first step; before, only attempts and commit are known.
        can_resume: there is a checkpoint; without one the run begins again.
        faults: files of the run that cannot be read.
        job: null for a run that is not of a sweep.
    """

    id: str
    name: str
    status: Status
    attempts: Annotated[list[Attempt], MinLen(1)]
    format: Literal[5] = 5
    job: JobIdentity | None = None
    has_begun: bool = False
    command: Command = field(default_factory=Command)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    seed: int | None = None
    code: Code = field(default_factory=Code)
    config: dict[str, Any] = field(default_factory=dict)
    parents: list[Parent] = field(default_factory=list)
    evaluation: Evaluation = field(default_factory=Evaluation)
    is_evaluated: bool = False
    can_resume: bool = True
    rounds: list[dict[str, Metrics]] = field(default_factory=list)
    samples: Annotated[list[Sample], MaxLen(100)] = field(default_factory=list)
    verifications: list[Verification] = field(default_factory=list)
    faults: Names = field(default_factory=list)
