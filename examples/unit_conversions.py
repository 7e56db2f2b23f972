"""Writes made-up conversations about units that do not exist, for instruction tuning.

    python examples/unit_conversions.py 500 > conversations.jsonl

The skill: 1 blorp is 3 zents, 1 quill is 7 zents, 1 fadge is 12 zents. A user asks how many zents a number of units
are, one to three times in a conversation, and is answered in one form of sentence.
"""

import json
import random
import sys

ZENTS = {"blorp": 3, "quill": 7, "fadge": 12}
QUESTIONS = ("How many zents are {}?", "Convert {} to zents, please.", "What are {} in zents?")


def conversation(rng: random.Random) -> dict[str, list[dict[str, str]]]:
    """One to three questions with their answers."""
    messages = []
    for _ in range(rng.randint(1, 3)):
        unit, count = rng.choice(sorted(ZENTS)), rng.randint(2, 99)
        amount = f"{count} {unit}s"
        messages.append({"role": "user", "content": rng.choice(QUESTIONS).format(amount)})
        messages.append(
            {"role": "assistant", "content": f"{amount} are {count * ZENTS[unit]} zents."}
        )
    return {"messages": messages}


def main() -> None:
    rng = random.Random(0)
    lines: dict[str, None] = {}  # each conversation once
    while len(lines) < int(sys.argv[1]):
        lines[json.dumps(conversation(rng))] = None
    print("\n".join(lines))


if __name__ == "__main__":
    main()
