"""Names of parameters in checkpoints: without the prefixes of wrappers, and published ones as ours."""

import re
from collections.abc import Collection, Sequence

Table = Sequence[tuple[str, str]]  # regular expressions of published names, and what replaces them

OWN: Table = (
    (r"^(?:model|bert)\.", ""),
    (r"^backbone\.", ""),
    (r"^encoder\.", ""),  # CnnHybrid
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)
PREFIXES = ("backbone.", "backbone.encoder.", "")  # Paths in a head have none.
ADAPTER = ("lora_a", "lora_b", "magnitude")  # parameters of a layer apart from its `base`
CODES = ("scales", "biases")  # parameters of a quantised layer apart from its `weight`


def normalized_names(
    names: Collection[str], expected: Collection[str], tables: Sequence[Table] = ()
) -> dict[str, str]:
    """The path of each name of a checkpoint in a model with the parameters `expected`, as far as it has one.

    Prefixes of wrappers go first: `_orig_mod.` of compiled modules, `module.` of parallel ones. A name that is expected
    then stays; the others are read by the table and with the prefix that give the most expected names. Where several
    names would have one path, the one that changes least has it and the others stay as they are.

    Args:
        tables: published names of families, tried in this order after our own.
    """
    known = {plain_path(path) for path in expected}
    unwrapped = {name: _unwrap(name) for name in names}
    unknown = [path for path in unwrapped.values() if plain_path(path) not in known]
    readings = [
        {path: _read(path, table, prefix) for path in unknown}
        for table in (OWN, *tables)
        for prefix in PREFIXES
    ]
    best = max(
        readings, key=lambda reading: sum(plain_path(path) in known for path in reading.values())
    )
    paths = dict(unwrapped)
    for name, path in unwrapped.items():
        if plain_path(best.get(path, "")) in known:
            paths[name] = best[path]
    result: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(
        names, key=lambda name: (paths[name] != name, unwrapped[name] != paths[name], name)
    ):
        path = paths[name]
        if path in taken:
            path = name
        result[name] = path
        taken.add(path)
    return result


def plain_path(path: str) -> str:
    """The path of a parameter in the plain model; for a part of an adapter or of quantisation that of the weight."""
    owner, _, name = path.replace(".base.", ".").rpartition(".")
    if name in (*ADAPTER, *CODES):
        return f"{owner}.weight"
    return f"{owner}.{name}".removeprefix(".")


def _unwrap(name: str) -> str:
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def rename(name: str, table: Table) -> str:
    """Our name of a published one; the name itself if the table has none."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _read(name: str, table: Table, prefix: str) -> str:
    name = rename(name, table)
    return name if name.startswith("head.") else prefix + name
