"""How the line on rows that are equal in two splits is recognised."""

SAME_INPUT = " with the same input as "  # marks it
DROPPED = "; left out"  # ends it where they are not used
