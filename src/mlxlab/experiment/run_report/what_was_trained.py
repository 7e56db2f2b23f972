"""The first card of a report: the task, the data, the model, and how long it was trained."""

from pathlib import PurePath

from mlxlab.config.issues import one_line, value_at
from mlxlab.experiment.facts.run_facts import RunFacts
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import Card
from mlxlab.wording import counted, percent

_TASKS = {"multi_label": "multi-label classification", "language_modelling": "language modelling"}
_SIZES = (  # text, then our key and that of a published model
    ("layers {:,}", "num_layers", "num_hidden_layers"),
    ("hidden size {:,}", "hidden_size"),
    ("heads {:,}", "num_heads", "num_attention_heads"),
)
_MAX_CLASSES, _MAX_COLUMNS = 4, 4  # that are named


def training_card(files: RunFiles) -> Card:
    """What was trained; every fact that is known."""
    facts = {
        "Task": _task(files.facts),
        "Data": _data(files),
        "Model": _model(files),
        "Shape": _shape(files),
        "Changed": one_line(
            "; ".join(f"at step {step:,}: {text}" for step, text in files.model_changes), 400
        ),
        "Tokenizer": _tokenizer(files.facts),
        "Teachers": one_line(", ".join(files.manifest.get("inputs", {}).get("teachers", {})), 160),
        "Against the teacher": _against_teacher(files),
        "Training": _length(files),
    }
    known = {name: text for name, text in facts.items() if text}
    return Card("What was trained?", one_line(_answer(files), 120), facts=known)


def _answer(files: RunFiles) -> str:
    """The model and the data; of weights that were loaded their number and name, instead of a size in words."""
    choices = files.manifest.get("inputs", {}).get("choices", {})
    model, source = (
        choices.get("model", ""),
        value_at(files.config, "data.source") if files.config else None,
    )
    data = PurePath(source).name if isinstance(source, str) and source else choices.get("data", "")
    if origin := _origin(files):
        count = _parameters(files)
        model = ", ".join(
            filter(None, [model, f"{_short(count)} parameters" if count else "", f"from {origin}"])
        )
    else:
        model = " ".join(filter(None, [model, _chosen_size(files)]))
    if teachers := files.manifest.get("inputs", {}).get("teachers", {}):
        model = f"{model}, distilled from {'a teacher' if len(teachers) == 1 else f'{len(teachers)} teachers'}"
    return (", on " if origin or teachers else " on ").join(
        filter(None, [model, data])
    ) or files.manifest["name"]


def _against_teacher(files: RunFiles) -> str:
    """Size and speed of a student."""
    reference = files.metrics["reference"] if files.metrics else {}
    student, teacher = (reference.get(name, {}) for name in ("student", "teacher"))
    texts = []
    for key, text in (
        ("parameters", "{} of its parameters"),
        ("ms per batch", "{} of its time per batch of an evaluation"),
    ):
        if (own := student.get(key)) and (other := teacher.get(key)):
            texts.append(text.format(percent(own / other, 0)))
    return ", ".join(texts)


def _chosen_size(files: RunFiles) -> str:
    """`model/size` if it was typed: without that the dimensions may be any."""
    inputs = files.manifest.get("inputs", {})
    is_typed = any(text.startswith("model/size=") for text in inputs.get("overrides", []))
    return inputs.get("choices", {}).get("model/size", "").replace("none", "") if is_typed else ""


def _origin(files: RunFiles) -> str:
    """The name of the weights that training began with, "" if they were random."""
    for parent in files.manifest.get("inputs", {}).get("parents", []):
        if parent["kind"] in ("checkpoint", "pretrained", "init_from"):
            return one_line("/".join(PurePath(parent["of"]).parts[-2:]), 80)
    return ""


def _parameters(files: RunFiles) -> int:
    """At the end of the run, or before its first step."""
    count = files.manifest.get("outcome", {}).get("parameters")
    return int(count) if count else files.facts.get("parameters", 0)


def _task(facts: RunFacts) -> str:
    if "task" not in facts:
        return ""
    name = f"{'masked ' * facts.get('masked', False)}{_TASKS.get(facts['task'], facts['task'])}"
    of = f" of {one_line(facts['label'], 40)}" if facts.get("label") else ""
    if not (count := facts.get("num_classes", 0)):
        return f"{name}{of}"
    named = [one_line(each, 24) for each in facts.get("classes", [])[:_MAX_CLASSES]]
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    kind = "labels" if facts["task"] == "multi_label" else "classes"
    return f"{name}{of}, {count:,} {kind}" + (f": {', '.join(named)}{more}" if named else "")


def _data(files: RunFiles) -> str:
    examples, columns = files.facts.get("examples", {}), files.facts.get("columns", [])
    source = value_at(files.config, "data.source") if files.config else None
    name = (
        source
        if isinstance(source, str)
        else files.manifest.get("inputs", {}).get("choices", {}).get("data", "")
    )
    rows = ", ".join(f"{count:,} {split}" for split, count in examples.items())
    shown = ", ".join(one_line(each, 30) for each in columns[:_MAX_COLUMNS])
    more = f" and {len(columns) - _MAX_COLUMNS} more" if len(columns) > _MAX_COLUMNS else ""
    read = f"column{'s' * (len(columns) > 1)} {shown}{more}" if columns else ""
    read += ", from which a text is written" if len(columns) > 1 else ""
    sizes = f"{rows} rows" if rows else _text_sizes(files)
    return "; ".join(filter(None, [one_line(name or "", 120), sizes, read]))


def _text_sizes(files: RunFiles) -> str:
    """Documents and tokens of each split of a text."""
    sizes = []
    for split, (documents, tokens) in files.facts.get("text", {}).items():
        about = "about " * (split in files.facts.get("estimated", []))
        sizes.append(
            f"{split} {about}{tokens:,} tokens in {documents:,} document{'s' * (documents != 1)}"
        )
    return ", ".join(sizes)


def _model(files: RunFiles) -> str:
    count, trainable = _parameters(files), files.facts.get("trainable_parameters", 0)
    start = f"from {origin}" if (origin := _origin(files)) else "from random weights"
    adapter = files.manifest.get("inputs", {}).get("choices", {}).get("model/adapter", "none")
    total = files.facts.get("parameters", 0)
    share = (
        f"{trainable:,} of them trained ({percent(trainable / total)})" if trainable < total else ""
    )
    how = f"adapter {adapter}" if adapter != "none" else ""
    return ", ".join(filter(None, [f"{count:,} parameters" if count else "", share, how, start]))


def _shape(files: RunFiles) -> str:
    """Of the model as the newest checkpoint has it: of pretrained weights it is theirs, not that of the config."""
    if files.state is None:
        return ""
    node = files.state["architecture"]
    node = (
        node["config"] if isinstance(node.get("config"), dict) else node
    )  # of an architecture of mlx-lm
    shown = []
    for text, *keys in _SIZES:
        size = next((node[key] for key in keys if isinstance(node.get(key), int)), None)
        shown += [text.format(size)] if size is not None else []
    return ", ".join([*shown, f"vocabulary {files.state['vocab_size']:,}"]) if shown else ""


def _tokenizer(facts: RunFacts) -> str:
    return (
        f"{facts['tokenizer']}, {facts.get('vocab_size', 0):,} tokens"
        if "tokenizer" in facts
        else ""
    )


def _length(files: RunFiles) -> str:
    outcome = files.manifest.get("outcome", {})
    step = files.state["progress"].step if files.state else outcome.get("steps")
    if step is None:
        return "no step was saved"
    tokens = files.state["progress"].tokens if files.state else outcome.get("tokens", 0)
    device = files.lock["machine"].get("device", "") if files.lock else ""
    where = " on the GPU" if "gpu" in device else " on the CPU" if "cpu" in device else ""
    seconds = outcome.get("wall_seconds")
    took = f" in {_duration(seconds)}, evaluations included," if seconds is not None else ""
    count = _parameters(files) if files.facts.get("task") == "language_modelling" else 0
    ratio = f" ({tokens / count:.2g} per parameter)" if count else ""
    return f"{counted(step, 'step')}{_epochs(files, step)}, {tokens:,} tokens{ratio}{took}{where}"


def _epochs(files: RunFiles, step: int) -> str:
    """Of steps of one size."""
    is_resized = files.state is not None and files.state["progress"].batch_sizes
    if is_resized or not (batches := files.facts.get("batches_per_epoch", 0)):
        return ""
    epochs = step / batches
    return f" ({epochs:.2g} epochs)" if epochs < 9.95 else f" ({epochs:,.0f} epochs)"


def _short(count: int) -> str:
    """22.7 M for 22,713,216."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{seconds:.0f} s"
    )
