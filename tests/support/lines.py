"""Short lines of text with few different characters."""

LETTERS = "abcdef\u00e9\u20ac"  # the last two have more than one byte
LINES = [f"zz{'zebra' * (n % 5)} {n:03d} of {LETTERS[n % 8]} zz" for n in range(40)]
