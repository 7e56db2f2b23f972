"""Sentences of passengers: every value in words, missing values stated, no information from validation rows."""

from pathlib import Path

import pytest

from mlxlab.data.titanic.templates import (
    TEMPLATES,
    count_companions,
    fit_statistics,
    party_outcome,
    render_sentence,
)
from support.titanic import csv_text, make_titanic, real_rows

ROWS = real_rows()
TRAIN = ROWS[:891]
STATISTICS = fit_statistics(TRAIN, labels=True)
NOBODY = fit_statistics([], labels=False)
MAN = ROWS[0]


def render(row, template, statistics=NOBODY):
    return render_sentence(row, TEMPLATES[template], statistics)


def test_each_template_in_full():
    assert {name: render(MAN, name) for name in TEMPLATES} == {
        "basic": "A male passenger, young adult, in the economical third class, with one sibling or spouse, paid a "
        "modest fare of 7.25 pounds and embarked at Southampton.",
        "narrative": "Mr Braund, a young adult man, boarded at Southampton as a passenger of the economical third "
        "class. He paid a modest fare of 7.25 pounds and travelled with one sibling or spouse.",
        "descriptive": "Sex: male. Age: 22 years. Class: economical third. Port: Southampton. Family aboard: with one "
        "sibling or spouse. Fare: a modest fare of 7.25 pounds.",
        "story": "It was at Southampton that a young adult man came aboard with a ticket of the economical third "
        "class, bought for a modest fare of 7.25 pounds, to sail with one sibling or spouse.",
        "brief": "man third class, Mr, family small, ticket alone, fare least.",
        "full": "man third class, Mr, family small, ticket alone, fare least, young adult, cabin unknown, port "
        "Southampton.",
        "group": "man third class, Mr, family small, ticket alone, fare least, party untold.",
    }


@pytest.mark.parametrize(
    ("age", "word"),
    [
        (0.42, "an infant"),
        (1, "a young"),
        (12.9, "a young"),
        (13, "a teenage"),
        (19, "a teenage"),
        (20, "a young adult"),
        (29, "a young adult"),
        (30, "a middle-aged"),
        (49, "a middle-aged"),
        (50, "a mature"),
        (64, "a mature"),
        (65, "an elderly"),
        (80, "an elderly"),
    ],
)
def test_ages_have_words(age, word):
    sentence = render(MAN._replace(age=age), "story")
    assert f"that {word} {'boy' if age < 13 else 'man'} came" in sentence


@pytest.mark.parametrize(
    ("fare", "words"),
    [
        (0.0, "a modest fare of 0.00"),
        (9.99, "a modest fare of 9.99"),
        (10, "a moderate fare of 10.00"),
        (30, "a substantial fare of 30.00"),
        (99.999, "a substantial fare of 100.00"),
        (100, "a premium fare of 100.00"),
        (512.3292, "a premium fare of 512.33"),
    ],
)
def test_fares_have_bands_and_two_decimals(fare, words):
    assert f"{words} pounds" in render(MAN._replace(fare=fare), "basic")


@pytest.mark.parametrize(
    ("sibsp", "parch", "ending"),
    [
        (0, 0, "travelled alone."),
        (1, 0, "travelled with one sibling or spouse."),
        (3, 0, "travelled with three siblings or spouses."),
        (0, 1, "travelled with one parent or child."),
        (2, 2, "travelled with two siblings or spouses and two parents or children."),
        (50, 11, "travelled with 50 siblings or spouses and 11 parents or children."),
    ],
)
def test_families_are_counted(sibsp, parch, ending):
    assert render(MAN._replace(sibsp=sibsp, parch=parch), "narrative").endswith(ending)


def test_missing_values_are_stated_in_every_template_that_uses_them():
    row = MAN._replace(age=None, fare=None, cabin=None, embarked=None, name="Somebody")
    assert render(row, "basic") == (
        "A male passenger, of unknown age, in the economical third class, with one sibling or spouse, paid an unknown "
        "fare and embarked at an unknown port."
    )
    assert render(row, "narrative").startswith(
        "The passenger, a man of unknown age, boarded at an unknown port"
    )
    assert "Age: unknown." in render(row, "descriptive")
    assert "that a man of unknown age came aboard" in render(row, "story")
    assert render(row, "full") == (
        "man third class, no title, family small, ticket alone, fare unknown, of unknown age, cabin unknown, port an "
        "unknown port."
    )


def test_no_number_has_more_than_two_decimals():
    import re

    row = MAN._replace(age=0.4199999999999999, fare=7.229166666666667)
    for template in TEMPLATES:
        assert not re.search(r"\d\.\d{3}", render(row, template))
    assert "Age: 0.4 years" in render(row, "descriptive")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ", .",
        "Smith",
        "Smith, John",
        ", Mr. X",
        "a" * 1000,
        "$age ${name} {0} %s",
        "\u2603, Mr. \u2603",
    ],
)
def test_any_name_makes_a_sentence(name):
    for template in TEMPLATES:
        assert render(MAN._replace(name=name), template)


def test_titles_and_surnames_are_read_from_the_usual_pattern():
    assert (MAN.title, MAN.surname) == ("Mr", "Braund")
    countess = next(row for row in ROWS if "Countess" in row.name)
    assert (countess.title, countess.surname) == ("the Countess", "Rothes")
    assert all(row.title and row.surname for row in ROWS)
    for name in ("Smith", "Smith, John", "Smith, . John", "Mr. John"):
        row = MAN._replace(name=name)
        assert (row.title, row.surname) == (None, None)


def test_every_real_row_is_rendered_by_every_template():
    for template in TEMPLATES:
        sentence = {render_sentence(row, TEMPLATES[template], STATISTICS) for row in ROWS}
        assert len(sentence) > (80 if template in ("brief", "group") else 300)


def test_statistics_never_count_the_row_itself():
    row = next(row for row in TRAIN if sum(other.ticket == row.ticket for other in TRAIN) == 3)
    without = fit_statistics([other for other in TRAIN if other.id != row.id], labels=True)
    assert count_companions(row, STATISTICS) == count_companions(row, without) == 2
    for row in TRAIN[::40]:
        assert party_outcome(row, STATISTICS) == party_outcome(row, fit_without(row))


def fit_without(row):
    return fit_statistics([other for other in TRAIN if other.id != row.id], labels=True)


def test_a_rows_own_label_never_reaches_its_sentence():
    for index in range(0, 891, 30):
        row = TRAIN[index]
        flipped = fit_statistics(
            [*TRAIN[:index], row._replace(survived=1 - row.survived), *TRAIN[index + 1 :]], True
        )
        for name in TEMPLATES:
            assert render(row, name, STATISTICS) == render(row, name, flipped)


def test_only_the_group_template_uses_training_labels():
    blind = fit_statistics(TRAIN, labels=False)
    assert blind["fates"] == {}
    for row in ROWS[::7]:
        for name in set(TEMPLATES) - {"group"}:
            assert render(row, name, STATISTICS) == render(row, name, blind)


def test_group_states_the_outcome_of_the_other_women_and_children_of_the_party():
    def fate(*labels):
        party = [
            MAN._replace(id=i, sex="female", survived=label, ticket="T 1")
            for i, label in enumerate(labels, 2)
        ]
        return party_outcome(MAN._replace(id=1, ticket="T 1"), fit_statistics(party, labels=True))

    assert [fate(), fate(1, 1), fate(0), fate(1, 0)] == ["untold", "saved", "lost", "divided"]
    men = [MAN._replace(id=5, survived=1, ticket="T 1")]
    assert (
        party_outcome(MAN._replace(id=1, ticket="T 1"), fit_statistics(men, labels=True))
        == "untold"
    )


def test_statistics_survive_being_saved():
    import json

    again = json.loads(json.dumps(STATISTICS))
    assert all(render(row, "group", again) == render(row, "group", STATISTICS) for row in ROWS)


def test_a_changed_validation_row_moves_no_training_sentence(tmp_path: Path):
    train, valid = tmp_path / "train.csv", tmp_path / "valid.csv"
    train.write_text(csv_text(ROWS[:600]))
    valid.write_text(csv_text(ROWS[600:891]))
    changes = {"source": str(train), "valid_source": str(valid), "templates": list(TEMPLATES)}
    before = make_titanic(tmp_path, **changes)
    moved = {"age": 99.0, "fare": 9999.0, "ticket": ROWS[0].ticket}
    changed = [row._replace(survived=1 - row.survived, **moved) for row in ROWS[600:891]]
    valid.write_text(csv_text(changed))
    after = make_titanic(tmp_path, **changes)
    assert before.encoder.all_texts(before.train_rows) == after.encoder.all_texts(after.train_rows)
    assert before.tokenizer.fingerprint == after.tokenizer.fingerprint
    assert before.encoder.statistics == after.encoder.statistics
