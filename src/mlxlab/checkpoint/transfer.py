"""Carries the weights of one model over to another: matched by name, renamed, merged, quantised or dequantised.

Knows strings and arrays only. A layer X with an adapter has `X.base.weight`, `X.lora_a`, `X.lora_b` and perhaps
`X.magnitude`; a quantised one `X.weight` (codes in uint32), `X.scales` and perhaps `X.biases`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import mlx.core as mx

from mlxlab.checkpoint.arrays import FLOATS, Arrays
from mlxlab.checkpoint.parameter_names import ADAPTER, CODES, Table, normalized_names
from mlxlab.checkpoint.transfer_report import Outcome, TransferReport

LayerPaths = dict[str, str]  # name of a parameter in a layer -> its path
Merge = Callable[[mx.array, mx.array, mx.array, float, mx.array | None], mx.array]

TIED = ("head.out", "backbone.embedding")  # an output layer, and the embedding that it may share


@dataclass(frozen=True)
class Layout:
    """How a model stores its weights: the scale alpha / rank of its adapters, and how codes are quantised.

    `exceptions` are layers quantised in another way, by their names in the checkpoint.
    """

    scale: float = 1.0
    group_size: int = 64
    bits: int = 4
    mode: str = "affine"
    exceptions: Mapping[str, "Layout"] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """What else is known of the two models.

    Args:
        tables: published names of families.
        ignored: names in the checkpoint that are no weights, such as buffers.
        optional: paths that may be new or left out, such as those of a head for another task.
        old: layout of the checkpoint; `new` that of the model.
        merge: the weight with its adapter folded in, of (weight, A, B, scale, magnitude).
    """

    tables: Sequence[Table] = ()
    ignored: re.Pattern[str] | None = None
    optional: re.Pattern[str] | None = None
    old: Layout = Layout()
    new: Layout = Layout()
    merge: Merge | None = None


DEFAULT_RULES = Rules()


def transfer(
    saved: Mapping[str, mx.array], expected: Mapping[str, mx.array], rules: Rules = DEFAULT_RULES
) -> "Transfer":
    """The arrays `expected` of a model with the numbers of `saved`; those that are not carried over stay as they are.

    Floating-point numbers get the expected type. Nothing is evaluated.
    """
    result = Transfer(saved, expected, rules)
    for layer, paths in _layers(expected).items():
        result.fill(layer, paths)
    result.find_unused()
    return result


class Transfer:
    """The arrays of a new model, filled one layer after the other.

    Attributes:
        weights: the arrays by path.
        sources: the name in the checkpoint of each that was taken, merged or converted.
        outcomes: what became of every array; `details` of some, and `unused` of arrays of the checkpoint.
    """

    def __init__(
        self, saved: Mapping[str, mx.array], expected: Mapping[str, mx.array], rules: Rules
    ) -> None:
        self.weights = dict(expected)
        self.sources: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.details: dict[str, str] = {}
        self.unused: dict[str, Outcome] = {}
        names = [name for name in saved if not (rules.ignored and rules.ignored.search(name))]
        paths = normalized_names(names, expected, rules.tables)
        self.expected = expected
        self.rules = rules
        self.names = {path: name for name, path in paths.items()}
        self.saved = {path: saved[name] for path, name in self.names.items()}
        self.layers = _layers(self.saved)
        self.used: set[str] = set()

    @property
    def report(self) -> TransferReport:
        report = TransferReport()
        for path, outcome in self.outcomes.items():
            report.add(outcome, path + self.details.get(path, ""))
        for name, outcome in self.unused.items():
            report.add(outcome, name)
        return report

    def fill(self, layer: str, new: LayerPaths) -> None:
        """Sets the arrays of one layer of the model."""
        fallback = ""
        if layer == TIED[0]:
            fallback = TIED[1]
        old = self.layers.get(layer) or self.layers.get(fallback) or {}
        weight = [name for name in ("weight", *CODES) if name in new]
        adapter = [name for name in ADAPTER if name in new and "lora_a" in new]
        keeps_adapter = (
            all((name in old) == (name in new) for name in ADAPTER)
            and all(self._fits(old.get(name), new[name]) for name in adapter)
            and (not adapter or self.rules.old.scale == self.rules.new.scale)
        )
        if weight:
            paths = old
            if keeps_adapter:
                paths = {name: path for name, path in old.items() if name not in ADAPTER}
            self._fill_weight(paths, new, weight)
        for name, path in new.items():
            if name in adapter and not keeps_adapter:
                self._fill_new(new, name)
            elif name not in weight:
                self._take(old.get(name), path)

    def find_unused(self) -> None:
        """Says what becomes of the arrays of the checkpoint that no layer has taken."""
        tied = self.layers.get(TIED[0], {}).get("weight")
        shared = self.layers.get(TIED[1], {}).get("weight")
        for path, name in sorted(self.names.items()):
            if path in self.used:
                continue
            is_copy = (
                path == tied
                and shared is not None
                and mx.array_equal(self.saved[path], self.saved[shared]).item() is True
            )
            is_expected = is_copy or self._is_optional(path)
            self.unused[name] = "dropped" if is_expected else "unexpected"

    def _fill_weight(self, old: LayerPaths, new: LayerPaths, weight: list[str]) -> None:
        """Sets a weight whose adapter or precision changes, or that is missing."""
        adapted = "lora_a" in old
        if not adapted and all(self._fits(old.get(name), new[name]) for name in weight):
            for name in weight:
                self._take(old[name], new[name])
            return
        arrays = None
        with suppress(ValueError):  # the shapes of its arrays do not agree
            dense = self._merged(old)
            if dense is not None:
                arrays = self._converted(dense, new, weight)
        self.used |= {old[name] for name in (*ADAPTER, *CODES) if name in old}
        if arrays is None:
            self._add_fault(old.get("weight"), new["weight"])
            return
        self.used.add(old["weight"])
        for name in weight:
            self.weights[new[name]] = arrays[name]
            self.sources[new[name]] = self.names[old["weight"]]
            self.outcomes[new[name]] = "merged" if adapted else "converted"

    def _fill_new(self, new: LayerPaths, name: str) -> None:
        """Leaves a parameter of a new adapter as it is drawn; magnitudes are the lengths of the rows of the weight."""
        if name == "magnitude":
            dense = _dense(self.weights, new, self.rules.new)
            self.weights[new[name]] = mx.sqrt(mx.square(dense).sum(axis=1))
        self.outcomes[new[name]] = "new"

    def _merged(self, old: LayerPaths) -> mx.array | None:
        """The floating-point weight of a layer of the checkpoint, its adapter folded in; None if it has none."""
        if "weight" not in old:
            return None
        layout = self.rules.old
        name = self.names[old["weight"]].removesuffix(".weight")
        weight = _dense(self.saved, old, layout.exceptions.get(name, layout))
        if "lora_a" not in old or "lora_b" not in old:
            return weight
        assert self.rules.merge is not None, "adapters in a checkpoint need a rule to merge them"
        a = self.saved[old["lora_a"]]
        b = self.saved[old["lora_b"]]
        return self.rules.merge(
            weight, a, b, self.rules.old.scale, self.saved.get(old.get("magnitude", ""))
        )

    def _converted(self, dense: mx.array, new: LayerPaths, weight: list[str]) -> Arrays | None:
        """A floating-point weight in the form that the model expects; None if the shapes do not fit."""
        layout = self.rules.new
        values: tuple[mx.array, ...] = (dense,)
        if "scales" in new:
            if dense.ndim != 2 or dense.shape[1] % layout.group_size:
                return None
            codes = dense.astype(mx.float32)
            values = mx.quantize(
                codes, group_size=layout.group_size, bits=layout.bits, mode=layout.mode
            )
        like = [self.expected[new[name]] for name in weight]
        if [array.shape for array in values] != [array.shape for array in like]:
            return None
        return {
            name: array.astype(a.dtype) for name, array, a in zip(weight, values, like, strict=True)
        }

    def _fits(self, old: str | None, new: str) -> bool:
        array = self.saved.get(old or "")
        like = self.expected[new]
        if array is None or array.shape != like.shape:
            return False
        both_float = array.dtype in FLOATS and like.dtype in FLOATS
        return both_float or array.dtype == like.dtype

    def _take(self, old: str | None, new: str) -> None:
        if old is None or not self._fits(old, new):
            self._add_fault(old, new)
            return
        self.used.add(old)
        name = self.names[old]
        self.weights[new] = self.saved[old].astype(self.expected[new].dtype)
        self.sources[new] = name
        self.outcomes[new] = "matched" if name == new else "renamed"

    def _add_fault(self, old: str | None, new: str) -> None:
        like = self.expected[new]
        if old is not None:
            self.used.add(old)
        if self._is_optional(new):
            self.outcomes[new] = "new"
        elif old is None:
            self.outcomes[new] = "missing"
        else:
            got = self.saved[old]
            self.outcomes[new] = "wrong shape"
            self.details[new] = f": expected {_described(like)}, got {_described(got)}"

    def _is_optional(self, path: str) -> bool:
        return self.rules.optional is not None and self.rules.optional.search(path) is not None


def _layers(paths: Collection[str]) -> dict[str, LayerPaths]:
    """The parameters of every layer, a layer with an adapter counting as one with its base."""
    layers: dict[str, LayerPaths] = defaultdict(dict)
    for path in paths:
        owner, _, name = path.rpartition(".")
        layers[owner.removesuffix(".base")][name] = path
    return dict(layers)


def _dense(arrays: Mapping[str, mx.array], paths: LayerPaths, layout: Layout) -> mx.array:
    """The floating-point weight of a layer, without its adapter."""
    weight = arrays[paths["weight"]]
    biases = arrays.get(paths.get("biases", ""))
    if "scales" not in paths:
        return weight
    scales = arrays[paths["scales"]]
    return mx.dequantize(
        weight,
        scales,
        biases,
        group_size=layout.group_size,
        bits=layout.bits,
        mode=layout.mode,
        dtype=mx.float32,
    )


def _described(array: mx.array) -> str:
    return f"{tuple(array.shape)} {str(array.dtype).removeprefix('mlx.core.')}"
