"""Metric keys that the training loop logs, and which of all metrics are better when lower.

| key | value | logged |
|---|---|---|
| `train/loss` | mean over the targets since the last log line; NaN without a finite step | every `log_every` steps |
| `train/<term>` | the same for each term of the loss | every `log_every` steps |
| `train/grad_norm` | mean over steps, before clipping | every `log_every` steps |
| `train/learning_rate` | of the last step | every `log_every` steps |
| `train/nonfinite_steps` | steps so far without effect: loss or gradient not finite | every `log_every` steps |
| `throughput/steps_per_sec`, `throughput/tokens_per_sec` | since the last log line | every `log_every` steps |
| `throughput/data_wait_seconds` | waited for batches since the start of the process | every `log_every` steps |
| `data/padding_fraction` | of the token slots since the last log line | every `log_every` steps |
| `data/skipped_records` | unreadable records since the start | every `log_every` steps |
| `compile/retraces` | traces of the compiled step beyond the first | every `log_every` steps |
| `valid/<metric>` | of an evaluation | every `eval_every` steps or epoch |
"""

LOSS = "train/loss"
GRAD_NORM = "train/grad_norm"
LEARNING_RATE = "train/learning_rate"
NONFINITE_STEPS = "train/nonfinite_steps"
STEPS_PER_SEC = "throughput/steps_per_sec"
TOKENS_PER_SEC = "throughput/tokens_per_sec"
DATA_WAIT_SECONDS = "throughput/data_wait_seconds"
PADDING_FRACTION = "data/padding_fraction"
SKIPPED_RECORDS = "data/skipped_records"
RETRACES = "compile/retraces"
VALID_LOSS = "valid/loss"

TRAIN = "train/"
VALID = "valid/"

_LOWER_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "error", "seconds", "nonfinite_steps", "skipped_records")


def lower_is_better(metric: str) -> bool:
    """Whether the smaller value of a metric is the better one: losses, errors, times and counts of failures."""
    return any(word in metric.lower() for word in _LOWER_IS_BETTER)
