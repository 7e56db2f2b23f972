"""Builds rows in the ids of a smaller vocabulary until it grows, and then in the original ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.text.batches import BatchBuilder, PackedRows, RowBuilder, RowLayout
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.remapping import Remapping, VocabularySwitch


@dataclass(frozen=True)
class SwitchedRows:
    """Rows of original ids as batches in the ids that `switch` says. Implements `BatchBuilder`."""

    switch: VocabularySwitch
    mapped: RowBuilder
    grown: RowBuilder

    @property
    def layout(self) -> RowLayout:
        return self.grown.layout

    def batch(self, rows: PackedRows, epoch: int) -> Batch:
        return (self.grown if self.switch.grown else self.mapped).batch(rows, epoch)


def new_switch(tokenizer: Tokenizer) -> VocabularySwitch | None:
    """None if the tokenizer has its own ids."""
    return None if tokenizer.vocabulary is None else VocabularySwitch(tokenizer.vocabulary)


def switched_rows(
    tokenizer: Tokenizer,
    switch: VocabularySwitch | None,
    build: Callable[[Tokenizer], RowBuilder],
    *,
    measured: bool,
) -> BatchBuilder:
    """Builds the rows of a tokenizer; `measured` for evaluation."""
    if switch is None:
        return build(tokenizer)
    token_bytes = np.array(tokenizer.token_bytes, np.float32) if measured else None
    builders = (
        replace(build(ids), remapping=Remapping(switch.vocabulary, grown, token_bytes))
        for grown, ids in ((False, tokenizer), (True, tokenizer.original))
    )
    return SwitchedRows(switch, *builders)
