"""Exact parameter counts of all sizes, from conf/model/size, and without memory."""

from pathlib import Path

import mlx.core as mx
import pytest
import yaml

from mlxlab.models.bert import Bert
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.model import Model, build_head, count_parameters
from mlxlab.models.transformer import Transformer

SIZES = Path(__file__).parents[2] / "conf" / "model" / "size"
EXACT = {  # without vocabulary, untied, tied, BERT classifier, BERT's backbone with its own vocabulary, branches
    "nano": (1_574_528, 5_670_528, 3_622_528, 3_320_450, 5_179_008, 601_729),
    "tiny": (8_392_960, 16_584_960, 12_488_960, 10_612_482, 14_329_600, 1_044_097),
    "small": (50_344_448, 66_728_448, 58_536_448, 46_548_482, 53_982_720, 1_928_833),
    "medium": (113_265_408, 137_841_408, 125_553_408, 98_330_882, 109_482_240, 2_813_569),
    "large": (402_703_360, 435_471_360, 419_087_360, 320_273_410, 335_141_888, 3_698_305),
    "xlarge": (838_944_000, 879_904_000, 859_424_000, 652_460_802, 671_046_400, 4_583_041),
}
SIZE_KEYS = ["hidden_size", "num_layers", "num_heads", "intermediate_size"]


def shape(size):
    found = yaml.safe_load((SIZES / f"{size}.yaml").read_text())
    assert list(found) == SIZE_KEYS
    return found


def decoder(size, tied, vocab_size=16_000, **switches):
    backbone = Transformer(**shape(size), vocab_size=vocab_size, tie_embeddings=tied, **switches)
    return Model(backbone, build_head(backbone, kind="language_modelling"))


def classifier(backbone, classes=2):
    return Model(backbone, build_head(backbone, kind="classification", num_classes=classes))


@pytest.mark.parametrize("size", EXACT)
def test_parameters_are_counted_exactly_and_without_memory(size):
    mx.clear_cache()
    before = mx.get_active_memory()
    without, untied, tied, bert, encoder_count, branches = EXACT[size]
    width = shape(size)["hidden_size"]
    assert count_parameters(decoder(size, tied=True)) == tied == without + 16_000 * width
    assert count_parameters(decoder(size, tied=False)) == untied == without + 2 * 16_000 * width
    assert count_parameters(classifier(Bert(**shape(size), vocab_size=16_000))) == bert
    encoder = Bert(**shape(size), vocab_size=30_522)
    assert count_parameters(encoder) == encoder_count
    hybrid = CnnHybrid(**shape(size), vocab_size=30_522)
    assert count_parameters(hybrid) - encoder_count == branches
    assert count_parameters(classifier(hybrid)) - count_parameters(hybrid) == 131_842
    assert mx.get_active_memory() - before < 1 << 20
