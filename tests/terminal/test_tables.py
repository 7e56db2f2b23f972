"""The one Markdown table."""

from mlxlab.terminal.tables import markdown_table


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
