"""Tables that are wider than the terminal become lists."""

from mlxlab.terminal.tables import fit_tables, markdown_table

HEAD = ["run", "name", "valid/loss"]
ROWS = [["1a2b3c4d", "a name of several words", "0.5"], ["5e6f", "a|b", ""]]
TABLE = markdown_table(HEAD, ROWS, "llr")


def test_a_table_that_fits_stays_as_it_is():
    text = f"before\n\n{TABLE}\nafter"
    assert fit_tables(text, len(TABLE.split("\n")[0])) == text


def test_a_row_of_a_wide_table_is_a_heading_and_a_line_for_each_value():
    assert fit_tables(f"before\n{TABLE}\nafter", 30).splitlines() == [
        "before",
        "1a2b3c4d",
        "  name        a name of",
        "              several words",
        "  valid/loss  0.5",
        "5e6f",
        "  name        a|b",
        "after",
    ]


def test_a_wide_table_of_two_columns_is_a_list_of_pairs():
    table = markdown_table(
        ["key", "value"], [["a", "one two three"], ["long name", "/a/path/that/is/long"]]
    )
    assert fit_tables(table, 20).splitlines() == [
        "key        value",
        "a          one two",
        "           three",
        "long name  /a/path/that/is/long",
    ]


def test_headings_can_be_formatted():
    assert "<1a2b3c4d>" in fit_tables(TABLE, 30, "<{}>".format).splitlines()
