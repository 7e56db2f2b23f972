"""Sentences of passengers: every value in words, missing values stated, no information from validation rows."""

import hashlib
import json
import re

import pytest

from mlxlab.data.labelled.sentences import restore_sentences
from mlxlab.data.titanic.dataset import load_rules
from support.titanic import csv_text, make_titanic, new_renderer, real_rows

ROWS = real_rows()
TRAIN = ROWS[:891]
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


AGES = {
    "an infant": (0.42,),
    "a young": (1, 12.9),
    "a teenage": (13, 19),
    "a young adult": (20, 29),
    "a middle-aged": (30, 49),
    "a mature": (50, 64),
    "an elderly": (65, 80),
}


@pytest.mark.parametrize("word", AGES)
def test_ages_have_words(word):
    for age in AGES[word]:
        sentence = render(MAN._replace(age=age), "story")
        assert f"that {word} {'boy' if age < 13 else 'man'} came" in sentence


FARES = {
    "modest": {0.0: "0.00", 9.99: "9.99"},
    "moderate": {10: "10.00"},
    "substantial": {30: "30.00", 99.999: "100.00"},
    "premium": {100: "100.00", 512.3292: "512.33"},
}


@pytest.mark.parametrize("band", FARES)
def test_fares_have_bands_and_two_decimals(band):
    for fare, amount in FARES[band].items():
        sentence = render(MAN._replace(fare=fare), "basic")
        assert f"a {band} fare of {amount} pounds" in sentence


def test_families_are_counted():
    large = render(MAN._replace(sibsp=50, parch=11), "narrative")
    assert large.endswith("travelled with 50 siblings or spouses and 11 parents or children.")
    assert render(MAN._replace(sibsp=0, parch=0), "narrative").endswith("travelled alone.")


def test_no_number_has_more_than_two_decimals():
    row = MAN._replace(age=0.4199999999999999, fare=7.229166666666667)
    for template in NAMES:
        assert not re.search(r"\d\.\d{3}", render(row, template))
    assert "Age: 0.4 years" in render(row, "descriptive")


NAMES_OF_NOBODY = ["", ", .", "Smith", "Smith, John", ", Mr. X", "a" * 1000, "$age ${name} {0} %s"]


@pytest.mark.parametrize("name", [*NAMES_OF_NOBODY, "\u2603, Mr. \u2603"])
def test_any_name_makes_a_sentence(name):
    for template in NAMES:
        assert render(MAN._replace(name=name), template)


def test_titles_and_surnames_are_read_from_the_usual_pattern():
    assert render(MAN, "narrative").startswith("Mr Braund, ")
    countess = next(row for row in ROWS if "Countess" in row.name)
    assert render(countess, "narrative").startswith("the Countess Rothes, ")
    assert not any(render(row, "narrative").startswith("The passenger") for row in ROWS[::9])
    for name in ("Smith", "Smith, John", "Smith, . John", "Mr. John"):
        assert render(MAN._replace(name=name), "narrative").startswith("The passenger, a ")


def test_groups_never_count_the_row_itself():
    row = next(row for row in TRAIN if sum(other.ticket == row.ticket for other in TRAIN) == 3)
    without = [other for other in TRAIN if other.id != row.id]
    assert companions(row, TRAIN) == companions(row, without) == 2
    for row in TRAIN[::80]:
        without = [other for other in TRAIN if other.id != row.id]
        assert outcome(row, TRAIN) == outcome(row, without)


def test_a_rows_own_label_never_reaches_its_sentence():
    for index in range(0, 891, 60):
        row = TRAIN[index]
        flipped = row._replace(survived=1 - row.survived)
        trained = new_renderer(NAMES, [*TRAIN[:index], flipped, *TRAIN[index + 1 :]])
        assert FITTED.sentences(row.typed()) == trained.sentences(row.typed())


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
    train.write_text(csv_text(ROWS[:600]))
    valid.write_text(csv_text(ROWS[600:891]))
    changes = {"source": str(train), "valid_source": str(valid), "templates": NAMES}
    before = make_titanic(tmp_path, **changes)
    moved = {"age": 99.0, "fare": 9999.0, "ticket": ROWS[0].ticket}
    changed = [row._replace(survived=1 - row.survived, **moved) for row in ROWS[600:891]]
    valid.write_text(csv_text(changed))
    after = make_titanic(tmp_path, **changes)
    assert list(before.inputs.training_texts()) == list(after.inputs.training_texts())
    assert before.tokenizer.fingerprint == after.tokenizer.fingerprint
    assert before.encoder.renderer.members == after.encoder.renderer.members
