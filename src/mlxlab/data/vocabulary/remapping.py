"""Original ids as those of a smaller vocabulary, until the model grows back to the full one."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import numpy as np

from mlxlab.data.batch import check_position
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap

# Arrays of an evaluation batch, like its targets:
IS_CORE = "is_core"  # bool: the original token is one of those that are kept
RARE_COST = "rare_cost"  # float32: nats to choose the original token among the rare ones
TARGET_BYTES = "target_bytes"  # float32: of the original token; only where all of them are known
GROWN = "vocabulary_grown"  # key of the position of an iterator


@dataclass(frozen=True)
class Remapping:
    """What becomes of original ids.

    Args:
        grown: the ids stay as they are.
        token_bytes: bytes of each original token, for evaluation batches; None in training batches.
    """

    vocabulary: VocabularyMap
    grown: bool
    token_bytes: np.ndarray | None = None

    def ids(self, original: np.ndarray) -> np.ndarray:
        """int32, of any shape."""
        return original if self.grown else self.vocabulary.forward[original]

    def measures(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        """What an evaluation needs to know of the original targets."""
        if self.token_bytes is None:
            return {}
        is_core = self.vocabulary.is_core[targets]
        choices = 1 if self.grown else self.vocabulary.num_rare
        cost = np.where(is_core, 0.0, log(choices)).astype(np.float32)
        arrays = {IS_CORE: is_core, RARE_COST: cost}
        if len(self.token_bytes):
            arrays[TARGET_BYTES] = self.token_bytes[targets]
        return arrays


@dataclass
class VocabularySwitch:
    """Which ids the batches have: those of `vocabulary`, or original ones once it has `grown`."""

    vocabulary: VocabularyMap
    grown: bool = False

    def state_dict(self) -> dict[str, object]:
        return {GROWN: self.grown}

    def load_state_dict(self, state: Mapping[str, object]) -> dict[str, object]:
        """Takes its key from the state of an iterator, and returns the others."""
        self.grown = check_position(state.get(GROWN), bool)
        return {key: value for key, value in state.items() if key != GROWN}

    def match(self, vocab_size: int) -> None:
        """Gives later batches the ids of a model of that many tokens."""
        self.grown = vocab_size >= self.vocabulary.vocab_size
