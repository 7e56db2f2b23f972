"""data=streaming as a whole: what is trained on, what is validated on, how much there is, what makes it another."""

import json

import numpy as np
import pytest
import tokenizers
from benchmarks.config import read_config
from benchmarks.data.stream import override
from tokenizers import models

from mlxlab.config.instantiate import instantiate
from mlxlab.data.text.dataset import open_validation
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from support.losses import write_losses
from support.streams import InMemorySource, batches_equal

COUNT = 150
SPECIAL = {"<pad>", "<eos>", "<mask>"}


def text(number):
    return f"Document {number} says {number * number}. " * (1 + number % 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"text": text(number)}) + "\n" for number in range(COUNT)]
    (folder / "text.jsonl").write_text("".join(lines))
    (folder / "other.jsonl").write_text("".join(lines[:30]))
    return folder


@pytest.fixture(scope="module")
def new(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def new(seed=0, masked=False, pretrained=None, **changes):
        node = read_config("data/streaming") | {
            "source": str(folder / "text.jsonl"),
            "seq_len": 16,
            "batch_size": 4,
        }
        node = override(node, {"shuffle.window": 20, "valid_fraction": 0.2, "prefetch": 0})
        node["order"] = read_config("data/order/shuffle")
        node["tokenizer"] = read_config("data/tokenizer/bpe") | {"vocab_size": 320}
        runtime = {"seed": seed, "cache": cache, "masked": masked, "parameters": 1000, "width": 8}
        return instantiate(override(node, changes), **runtime, pretrained=pretrained)

    return new


def documents(data, batches):
    """The texts that batches hold, however they were packed: those that end in them."""
    tokens = np.concatenate([batch.targets[batch.loss_weights > 0] for batch in batches])
    ends = np.flatnonzero(tokens == data.tokenizer.eos_id)
    return [data.tokenizer.decode(part) for part in np.split(tokens, ends + 1)[:-1]]


def test_held_out_documents_are_never_trained_on(new):
    data = new()
    train, valid = documents(data, data.train), documents(data, data.valid)
    assert 15 < len(valid) < 45
    assert f"{len(valid)} documents for validation" in data.sources[0]
    assert len(train) + len(valid) == COUNT
    seen = set(train[1:]) | set(valid[1:])  # The first token of a stream is no target.
    assert len(seen) == COUNT - 2
    assert seen <= {text(number) for number in range(COUNT)}


def test_validation_is_the_same_for_every_seed_and_kind_of_reading(new):
    expected = list(new().valid)
    changes = [{"seed": 1}, {"streaming": False}, {"max_train_examples": 10}]
    for change in [*changes, {"packing.stride": 5}]:
        actual = list(new(**change).valid)
        assert all(batches_equal(a, b) for a, b in zip(expected, actual, strict=True))


CURRICULUM = read_config("data/order/curriculum") | {"pool": 50, "rescore_every": 7, "keep": 0.5}
CHANGES = {
    "default": {},
    "limited": {"max_train_examples": 40},
    "overlapping": {"packing.stride": 5, "packing.mask_across_documents": True},
    "curriculum": {"order": CURRICULUM},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("masked", [False, True])
def test_in_memory_the_batches_are_those_that_are_streamed(new, masked, change):
    streamed = new(masked=masked, **change)
    in_memory = new(masked=masked, streaming=False, **change)
    assert streamed.fingerprint == in_memory.fingerprint
    if not change:
        estimated = streamed.train.batches_per_epoch
        assert estimated == pytest.approx(in_memory.train.batches_per_epoch, rel=0.1)
    for _ in range(2):
        pairs = list(zip(streamed.train, in_memory.train, strict=True))
        assert all(batches_equal(a, b) for a, b in pairs)
        assert len(pairs) == in_memory.train.batches_per_epoch
        assert streamed.train.state_dict() == in_memory.train.state_dict()


def test_a_source_of_its_own_to_validate_on(new, folder):
    other = str(folder / "other.jsonl")
    data = new(valid_source=other)
    assert len(documents(data, data.valid)) == 30
    assert len(documents(data, data.train)) == COUNT
    assert not any("warning" in line for line in data.sources)
    same = new(valid_source=str(folder / "text.jsonl"))
    assert any("warning" in line for line in same.sources)
    few = new(valid_source=other, max_valid_examples=7)
    assert len(documents(few, few.valid)) == 7


def test_parts_of_a_file_to_train_and_to_validate_on(new):
    data = new(**{"reading.split": "[:80%]", "valid_split": "[80%:]"})
    train, valid = documents(data, data.train), documents(data, data.valid)
    assert len(train) + len(valid) == COUNT
    assert not set(train) & set(valid)


def test_each_setting_that_moves_a_token_makes_it_other_data(new):
    fingerprint = new().fingerprint
    moving = [{"seed": 1}, {"masked": True}, {"seq_len": 17}, {"max_train_examples": 9}]
    moving += [{"packing.stride": 3}, {"packing.mask_across_documents": True}]
    moving += [{"shuffle.window": 21}, {"shuffle.row_buffer": 8}]
    moving += [{"valid_fraction": 0.3}, {"max_valid_examples": 5}]
    moving += [{"order": CURRICULUM}, {"order": CURRICULUM | {"alpha": 0.5}}]
    others = [new(**change).fingerprint for change in moving]
    assert len({fingerprint, *others}) == 1 + len(moving)
    free = [{"batch_size": 5}, {"eval_batch_size": 3}, {"prefetch": 2}, {"on_error": "skip"}]
    free += [{"streaming": False}, {"order": read_config("data/order/measured")}]
    often = {"packing.mlm_probability": 0.3}  # Nothing is hidden unless the model is masked.
    assert {new(**change).fingerprint for change in [*free, often]} == {fingerprint}
    assert new(masked=True, **often).fingerprint != new(masked=True).fingerprint


def test_the_tokenizer_saved_is_the_one_used_again(new, tmp_path):
    data = new()
    data.save(tmp_path)
    again = new(
        pretrained=tmp_path, tokenizer=read_config("data/tokenizer/bpe") | {"vocab_size": 300}
    )
    assert again.tokenizer.fingerprint == data.tokenizer.fingerprint
    assert again.fingerprint == data.fingerprint
    assert {path.name for path in tmp_path.iterdir()} >= {"tokenizer.json", "data.json"}


def test_only_selected_documents_are_trained_on(new, tmp_path):
    def ids_of(data):
        return sorted({int(i) for batch in data.train for i in batch.example_ids if i >= 0})

    data = new()
    ids = ids_of(data)
    values = {"id": np.array(ids), "step": np.zeros(len(ids), np.int64), "time": np.zeros(len(ids))}
    for name in ("targets", "sum", "mean", "kl", "cross_entropy"):
        values[name] = np.arange(len(ids), dtype=np.float32)
    write_losses(values, tmp_path / "losses.parquet")
    hardest = {"mode": "hardest", "percent": 10, "source": str(tmp_path / "losses.parquet")}
    chosen = new(select=read_config("data/streaming")["select"] | hardest)
    assert set(ids_of(chosen)) <= set(ids[-len(ids) // 10 :])
    assert chosen.fingerprint != data.fingerprint
    assert [b.tokens.tolist() for b in chosen.valid] == [b.tokens.tolist() for b in data.valid]


def test_faults_of_the_user_are_one_line(new, tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        new(source="missing.jsonl")
    with pytest.raises(ConfigError, match="no mask token"):
        new(masked=True, pretrained=without_mask(tmp_path))
    with pytest.raises(DataError, match="no token to end documents"):
        new(pretrained=without_mask(tmp_path, "<eos>"))
    with pytest.raises(DataError, match=r"data\.valid_fraction=0\.999999 leaves none on one side"):
        new(**{"valid_fraction": 0.999999})
    with pytest.raises(DataError, match=r"data\.seq_len=100000: expected at most \d+"):
        new(seq_len=100_000)
    with pytest.raises(ConfigError, match=r"data\.shuffle\.row_buffer=8: expected 0"):
        new(**{"order": CURRICULUM, "shuffle.row_buffer": 8})


def without_mask(folder, name="<mask>"):
    """The folder of a tokenizer that lacks a special token."""
    pieces = ["a", *sorted(SPECIAL - {name})]
    inner = models.BPE({piece: token for token, piece in enumerate(pieces)}, [], unk_token="a")
    Tokenizer(tokenizers.Tokenizer(inner)).save(folder)
    return folder


class Hub:
    """Opens the splits named of any data set: each has 40 documents."""

    def __init__(self, *splits):
        self.splits, self.requests = splits, []

    def __call__(self, source, split):
        self.requests.append((source, split))
        if (split or "train") not in self.splits:
            raise ConfigError(f"{source}: no split {split}")
        return InMemorySource([f"{split} {number}" for number in range(40)])


@pytest.mark.parametrize("splits", [("train", "validation"), ("train",)])
def test_a_hub_set_is_validated_on_its_own_split_where_it_has_one(splits):
    hub = Hub(*splits)
    opened = hub("someone/stories", None)
    sides = open_validation(opened, ["someone/stories"], None, None, 0.3, hub)
    assert hub.requests == [("someone/stories", None), ("someone/stories", "validation")]
    train, valid = (sum(len(some) for _, some in side.windows(0, 0)) for side in sides)
    assert (train + valid, train > valid > 0) == ((80, False) if len(splits) > 1 else (40, True))
