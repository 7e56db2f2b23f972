"""Original ids as those of a smaller vocabulary, until the model grows back to the full one."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import TypedDict

import numpy as np

from mlxlab.data.batch import check_position
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import DataError
from mlxlab.files.untrusted import unpack_bytes

# Arrays of an evaluation batch, like its targets:
IS_CORE = "is_core"  # bool: the original token is one of those that are kept
RARE_COST = (
    "rare_cost"  # float32: nats to choose the original token among those that share the rare id
)
TARGET_BYTES = "target_bytes"  # float32: of the original token; only where all of them are known
STATE = "vocabulary"  # key of the position of an iterator


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
        arrays = {
            IS_CORE: is_core,
            RARE_COST: np.where(is_core, 0.0, log(choices)).astype(np.float32),
        }
        return arrays | ({TARGET_BYTES: self.token_bytes[targets]} if len(self.token_bytes) else {})


class SwitchState(TypedDict):
    """The vocabulary at a position, as JSON."""

    core: str  # `VocabularyMap.packed`
    grown: bool


@dataclass
class VocabularySwitch:
    """Which ids the batches of a data set have: those of `vocabulary`, or the original ones once it has `grown`."""

    vocabulary: VocabularyMap
    grown: bool = False

    def state_dict(self) -> dict[str, object]:
        return {STATE: SwitchState(core=self.vocabulary.packed, grown=self.grown)}

    def load_state_dict(self, state: Mapping[str, object]) -> dict[str, object]:
        """Takes its key from the state of an iterator, and returns the others; DataError if the map is another one."""
        if STATE not in state:
            raise DataError(f"the saved position is malformed: {STATE!r} is missing")
        saved = check_position(state[STATE], SwitchState)
        core = np.packbits(self.vocabulary.is_core).tobytes()
        if (
            unpack_bytes(
                saved["core"], len(core), "the saved position is malformed: vocabulary.core"
            )
            != core
        ):
            raise DataError(
                "the saved position is in another vocabulary: other tokens of the tokenizer are kept"
            )
        self.grown = saved["grown"]
        return {key: value for key, value in state.items() if key != STATE}

    def match(self, vocab_size: int) -> bool:
        """Gives later batches the ids of a model of that many tokens; True if they change."""
        before, self.grown = self.grown, vocab_size >= self.vocabulary.vocab_size
        return self.grown != before
