"""Sentences of passengers: every value in words, missing values stated, no information from validation rows."""

import hashlib
import json

import pytest

from mlxlab.data.labelled.sentences import restore_sentences
from mlxlab.data.titanic.dataset import load_rules
from support.titanic import csv_text, make_titanic, new_bpe_trainer, new_renderer, real_rows

ROWS = real_rows()
TRAIN = ROWS[:891]
FEW = ROWS[:240]
NAMES = list(load_rules().templates)
FITTED = new_renderer(NAMES, TRAIN)
MAN = ROWS[0]
DIGESTS = {  # of the sentences of all 1,309 rows before they were rendered by Jinja
    "titanic.csv": {
        "basic": "dc8d62542dfc46d2",
        "narrative": "17dd0044248d6733",
        "descriptive": "9ae1b4fc963a0d8f",
        "story": "2bef78b48166e9df",
        "brief": "8eefddc173d137e2",
        "full": "1b3d808232beb50f",
        "group": "77a336afe35900a3",
    },
    "synthetic.csv": {
        "basic": "7e9e32d100f1c6fa",
        "narrative": "c24b2f740046c602",
        "descriptive": "441dd365141a36cd",
        "story": "877590c4cb5ac700",
        "brief": "aac67ee94c482c71",
        "full": "61eafe2a67abe3c3",
        "group": "320733cd1745b582",
    },
}


def render(row, template, trained=()):
    [sentence] = new_renderer([template], trained).sentences(row.typed())
    return sentence


def outcome(row, trained):
    """What is said of the other women and children of the party."""
    return render(row, "group", trained).rpartition(" ")[2].rstrip(".")


def companions(row, trained):
    return len(list(new_renderer(["full"], trained)._others("companions", row.typed())))


@pytest.mark.parametrize("file", DIGESTS)
def test_all_sentences_are_those_of_earlier_versions(file):
    rows = real_rows(file)
    fitted = new_renderer(NAMES, rows[:891])
    columns = zip(*(fitted.sentences(row.typed()) for row in rows), strict=True)
    digests = {
        name: hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:16]
        for name, sentences in zip(NAMES, columns, strict=True)
    }
    assert digests == DIGESTS[file]


NAMES_OF_NOBODY = ["", ", .", "Smith", "Smith, John", ", Mr. X", "a" * 1000, "$age ${name} {0} %s"]


@pytest.mark.parametrize("name", [*NAMES_OF_NOBODY, "\u2603, Mr. \u2603"])
def test_any_name_makes_a_sentence(name):
    for template in NAMES:
        assert render(MAN._replace(name=name), template)


def test_groups_never_count_the_row_itself():
    row = next(row for row in FEW if sum(other.ticket == row.ticket for other in FEW) == 3)
    without = [other for other in FEW if other.id != row.id]
    assert companions(row, FEW) == companions(row, without) == 2
    for row in FEW[::60]:
        without = [other for other in FEW if other.id != row.id]
        assert outcome(row, FEW) == outcome(row, without)


def test_a_rows_own_label_never_reaches_its_sentence():
    fitted = new_renderer(NAMES, FEW)
    for index in range(0, len(FEW), 40):
        row = FEW[index]
        flipped = row._replace(survived=1 - row.survived)
        trained = new_renderer(NAMES, [*FEW[:index], flipped, *FEW[index + 1 :]])
        assert fitted.sentences(row.typed()) == trained.sentences(row.typed())


def test_only_the_group_template_uses_training_labels():
    others = [name for name in NAMES if name != "group"]
    assert new_renderer(others, TRAIN).members.keys() == {"companions"}
    assert new_renderer(["basic"], TRAIN).members == {}
    assert FITTED.members.keys() == {"companions", "fates"}


def test_group_states_the_outcome_of_the_other_women_and_children_of_the_party():
    man = MAN._replace(id=1, ticket="T 1")

    def fate(*labels):
        party = [
            MAN._replace(id=number, sex="female", survived=label, ticket="T 1")
            for number, label in enumerate(labels, 2)
        ]
        return outcome(man, party)

    assert [fate(), fate(1, 1), fate(0), fate(1, 0)] == ["untold", "saved", "lost", "divided"]
    assert outcome(man, [MAN._replace(id=5, survived=1, ticket="T 1")]) == "untold"


def test_a_renderer_survives_being_saved():
    state = json.loads(json.dumps(FITTED.state_dict()))
    again = restore_sentences(state, load_rules())
    assert all(again.sentences(row.typed()) == FITTED.sentences(row.typed()) for row in ROWS[::20])


def test_a_changed_validation_row_moves_no_training_sentence(tmp_path):
    train, valid = tmp_path / "train.csv", tmp_path / "valid.csv"
    train.write_text(csv_text(ROWS[:150]))
    valid.write_text(csv_text(ROWS[150:250]))
    changes = {"source": str(train), "valid_source": str(valid), "templates": NAMES}
    changes["tokenizer"] = new_bpe_trainer(vocab_size=400)
    before = make_titanic(tmp_path, **changes)
    moved = {"age": 99.0, "fare": 9999.0, "ticket": ROWS[0].ticket}
    changed = [row._replace(survived=1 - row.survived, **moved) for row in ROWS[150:250]]
    valid.write_text(csv_text(changed))
    after = make_titanic(tmp_path, **changes)
    assert list(before.inputs.training_texts()) == list(after.inputs.training_texts())
    assert before.tokenizer.fingerprint == after.tokenizer.fingerprint
    assert before.encoder.renderer.members == after.encoder.renderer.members
