"""A small text with a vocabulary of its most frequent characters."""

from mlxlab.data.sources.open import Reading
from mlxlab.data.text.batches import Packing
from mlxlab.data.text.dataset import Shuffling, StreamingTextDataset
from mlxlab.data.text.order import DataOrder
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.data.vocabulary.vocabulary_map import VocabularyLimit
from mlxlab.extensions.example_losses.selection import LossSelection

# Of 24 tokens 4 are special; z is the commonest, so that ids by frequency are not those in order.
LETTERS = "abcdef\u00e9\u20ac"  # the last two have more than one byte
LINES = [f"zz{'zebra' * (n % 5)} {n:03d} of {LETTERS[n % 8]} zz" for n in range(40)]


def text_data(
    folder,
    size=None,
    coverage=None,
    *,
    masked=False,
    prefetch=0,
    overfit_batches=None,
    restored=None,
):
    """The data set of `LINES`."""
    path = folder / "lines.jsonl"
    if not path.exists():
        path.write_text("".join(f'{{"text": "{line}"}}\n' for line in LINES), encoding="utf-8")
    return StreamingTextDataset(
        source=str(path),
        mixture=None,
        text_column="text",
        on_error="strict",
        reading=Reading(),
        valid_source=None,
        valid_split=None,
        valid_fraction=0.3,
        max_valid_examples=100,
        max_train_examples=None,
        shuffle=Shuffling(window=8, row_buffer=0),
        order=DataOrder(),
        streaming=True,
        tokenizer=CharTokenizerTrainer(on_unknown="error", train_examples=1000, path=None),
        vocabulary=VocabularyLimit(size, coverage),
        seq_len=16,
        packing=Packing(stride=None, mask_across_documents=False, mlm_probability=0.3),
        select=LossSelection(mode=None, percent=25, score="mean", source=None),
        batch_size=3,
        eval_batch_size=3,
        prefetch=prefetch,
        overfit_batches=overfit_batches,
        seed=1,
        cache=folder / "cache",
        masked=masked,
        parameters=1000,
        width=8,
        restored=restored,
    )
