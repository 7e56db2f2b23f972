"""The one Markdown table; those wider than the terminal become lists."""

from mlxlab.terminal.tables import fit_tables, markdown_table

HEAD = ["run", "name", "valid/loss"]
ROWS = [["1a2b3c4d", "a name of several words", "0.5"], ["5e6f", "a|b", ""]]
TABLE = markdown_table(HEAD, ROWS, "llr")


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


def test_columns_are_padded_and_aligned():
    assert markdown_table(
        ["name", "value", "n"], [["a", "1.5", "10"], ["longer name", "-12.25", ""]]
    ).splitlines() == [
        "| name        |  value |   n |",
        "|-------------|-------:|----:|",
        "| a           |    1.5 |  10 |",
        "| longer name | -12.25 |     |",
    ]


def test_line_breaks_and_control_characters_stay_out_of_a_table():
    assert markdown_table(["name"], [["a\x1b[2J\nb"]]).splitlines()[-1] == "| a [2J b |"
