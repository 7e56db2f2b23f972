"""What happened since the last log line: sums, so that it can be saved and gone on with."""

from dataclasses import dataclass, field


@dataclass
class RunningTotals:
    """Sums over the updates since the last log line; those that were skipped count for `tokens` and `places` only."""

    loss: float = 0.0
    weight: float = 0.0
    norm: float = 0.0
    steps: int = 0
    places: int = 0  # in the batches, padding included
    tokens: int = 0
    parts: dict[str, float] = field(default_factory=dict)  # of the loss, by name
