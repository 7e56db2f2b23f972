"""A network for the rows of a table: numbers as piecewise-linear codes, and members that share their weights.

Piecewise-linear codes are of Gorishniy et al. 2022, members that share weights of Gorishniy et al. 2024 (TabM). Folds are
networks of their own that are trained side by side, each without the rows of its fold.

Shapes: B rows, F folds, K members, N columns of numbers, M columns of categories, Q slots of a code, R features,
O outputs.
"""

import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Annotated, NamedTuple, NotRequired, TypedDict

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.backend.ops.dropout import Dropout
from mlxlab.data.batch import TaskKind
from mlxlab.errors import ConfigError, DataError
from mlxlab.schema.constraints import Count, MinLen, Positive, Share, Size

SOFT_LIMIT = 3.0  # robust standard deviations, near which a number is squeezed
TREES = 120  # each output has as many
LEAVES = 8  # the most that a tree has
NODES = 2 * LEAVES - 1
SHARPNESS = 3.0  # makes logits of the margins of support vector machines
MAX_TREE_OUTPUTS = 8  # a model of more outputs has no trees
MIN_PROBABILITY = 1e-30


class Margin(TypedDict):
    """What a cell says of an output: `cell * scale + center` is its margin, or the number itself in a regression.

    Groups are models of n-grams (0), of vectors (1) and of both (2); the margins of a group in several columns are summed.
    """

    group: Count
    output: Count
    center: float
    scale: Positive


class Column(TypedDict):
    """A column as the model reads it: a number if it has `edges`, else a category.

    Args:
        edges: of the bins of a number, ascending, in robust standard deviations.
        mean, deviation: of the squeezed number in the training rows.
        categories: how many there are, by their codes from 0; any other code is an unseen category.
        missing: whether cells are missing in the training rows.
        margin: of a number that a model of texts gives.
    """

    edges: NotRequired[Annotated[list[float], MinLen(2)]]
    mean: NotRequired[float]
    deviation: NotRequired[Positive]
    categories: NotRequired[Count]
    missing: bool
    margin: NotRequired[Margin]


class Features:
    """What networks read of a row: R numbers, flags and one-hots, and a code for each column."""

    def __init__(self, columns: Sequence[Column]) -> None:
        for each in columns:
            if not ({"edges", "mean", "deviation"} <= each.keys() or "categories" in each):
                expected = "expected edges, mean and deviation, or categories"
                raise ConfigError(f"model.columns: {expected}, got {', '.join(each)}")
        self.num_columns = len(columns)
        self.numbers = [index for index, each in enumerate(columns) if "edges" in each]
        self.categories = [index for index, each in enumerate(columns) if "edges" not in each]
        numbers = [columns[index] for index in self.numbers]
        categories = [columns[index] for index in self.categories]
        self._set_bins(numbers)
        self.category_slots = max([each["categories"] for each in categories], default=0)
        flags = [position for position, each in enumerate(numbers) if each["missing"]]
        self.flagged_numbers = mx.array(flags, mx.int32)
        slots: list[int] = []
        for position, each in enumerate(categories):
            first = position * (self.category_slots + 1)
            slots += range(first, first + each["categories"])
            if each["missing"]:
                slots.append(first + self.category_slots)
        self.category_features = mx.array(slots, mx.int32)
        self.size = len(numbers) + len(flags) + len(slots)

    def _set_bins(self, numbers: Sequence[Column]) -> None:
        self.number_slots = max([len(each["edges"]) - 1 for each in numbers], default=0)
        shape = (len(numbers), self.number_slots)
        lower, least, most = np.zeros((3, *shape), np.float32)
        width = np.ones(shape, np.float32)
        for row, column in enumerate(numbers):
            edges = np.array(column["edges"], np.float32)
            bins = len(edges) - 1
            lower[row, :bins] = edges[:-1]
            width[row, :bins] = np.diff(edges)
            most[row, :bins] = 1
            # Values outside of the training rows go on in the first and last bin, up to a width more.
            most[row, bins - 1] = 2
            if bins > 1:
                least[row, 0] = -1
        self.bins = [mx.array(each) for each in (lower, width, least, most)]
        self.means = mx.array([each["mean"] for each in numbers])
        self.deviations = mx.array([each["deviation"] for each in numbers])

    def __call__(self, cells: mx.array) -> tuple[mx.array, list[mx.array]]:
        """Cells (B, N + M) -> features (B, R), and the codes of numbers (B, N, Q) and categories (B, M, Q)."""
        if cells.shape[1] != self.num_columns:  # MLX has no bounds checks.
            raise DataError(f"expected {self.num_columns} cells a row, got {cells.shape[1]}")
        features = []
        codes = []
        if self.numbers:
            values, code, is_missing = self._read_numbers(cells[:, mx.array(self.numbers)])
            features += [values, mx.take(is_missing, self.flagged_numbers, axis=1)]
            codes.append(code)
        if self.categories:
            code = self._read_categories(cells[:, mx.array(self.categories)])
            features.append(mx.take(code.reshape(len(cells), -1), self.category_features, axis=1))
            codes.append(code)
        return mx.concatenate(features, axis=1), codes

    def _read_numbers(self, cells: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        is_missing = mx.isnan(cells)
        numbers = mx.where(is_missing, 0, cells)
        squeezed = numbers / mx.sqrt(1 + mx.square(numbers / SOFT_LIMIT))
        values = (squeezed - self.means) / self.deviations
        values = mx.where(is_missing, 0, values)

        lower, width, least, most = self.bins
        code = (numbers[:, :, None] - lower) / width
        code = mx.clip(code, least, most)
        code = mx.where(is_missing[:, :, None], 0, code)
        flags = is_missing.astype(mx.float32)
        return values, mx.concatenate([code, flags[:, :, None]], axis=2), flags

    def _read_categories(self, cells: mx.array) -> mx.array:
        one_hot = cells[:, :, None] == mx.arange(self.category_slots)
        is_missing = mx.isnan(cells)[:, :, None]
        return mx.concatenate([one_hot, is_missing], axis=2).astype(mx.float32)


class NetworkSizes(NamedTuple):
    """The arguments of `Tabular` by these names."""

    folds: int
    members: int
    code_size: int
    hidden_size: int
    num_layers: int
    dropout: float


class TabularNetwork(nn.Module):
    """Features (B, R) and codes -> logits (F, K, B, O)."""

    def __init__(self, features: Features, sizes: NetworkSizes, outputs: int) -> None:
        super().__init__()
        folds, members, code_size, hidden_size, num_layers, dropout = sizes
        self.folds = folds
        groups = [
            (len(features.numbers), features.number_slots + 1),
            (len(features.categories), features.category_slots + 1),
        ]
        groups = [(columns, slots) for columns, slots in groups if columns]
        self.codes = [CodeEmbedding(folds, *group, code_size) for group in groups]
        width = features.size + sum(columns for columns, _ in groups) * code_size
        self.signs = mx.ones((folds, members, 1, width))
        widths = [width, *[hidden_size] * num_layers]
        self.layers = [
            MemberLayer(folds, members, size, hidden_size, dropout) for size in widths[:-1]
        ]
        self.out = mx.zeros((folds, members, hidden_size, outputs))
        self.out_bias = mx.zeros((folds, members, 1, outputs))

    def __call__(self, features: mx.array, codes: Sequence[mx.array]) -> mx.array:
        rows = len(features)
        parts = []
        for code, embed in zip(codes, self.codes, strict=True):
            parts.append(embed(code).reshape(self.folds, rows, -1))
        parts.append(mx.broadcast_to(features, (self.folds, *features.shape)))
        x = mx.concatenate(parts, axis=2)  # (F, B, D)
        x = x[:, None] * self.signs  # (F, K, B, D)
        for layer in self.layers:
            x = layer(x)
        return x @ self.out + self.out_bias


class CodeEmbedding(nn.Module):
    """The codes of C columns (B, C, Q), each by a matrix of its own -> (F, B, C, E)."""

    def __init__(self, folds: int, columns: int, slots: int, size: int) -> None:
        super().__init__()
        self.weight = mx.zeros((folds, columns, slots, size))
        self.bias = mx.zeros((folds, 1, columns, size))

    def __call__(self, codes: mx.array) -> mx.array:
        # (C, B, Q) @ (F, C, Q, E) -> (F, C, B, E)
        hidden = codes.transpose(1, 0, 2) @ self.weight
        return nn.relu(hidden.transpose(0, 2, 1, 3) + self.bias)


class MemberLayer(nn.Module):
    """A hidden layer whose matrix the members of a fold share: (F, K, B, D) -> (F, K, B, H)."""

    def __init__(self, folds: int, members: int, size: int, hidden_size: int, dropout: float):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.weight = mx.zeros((folds, size, hidden_size))
        self.scale = mx.ones((folds, members, 1, hidden_size))
        self.bias = mx.zeros((folds, members, 1, hidden_size))

    def __call__(self, x: mx.array) -> mx.array:
        folds, members, rows, size = x.shape
        product = x.reshape(folds, members * rows, size) @ self.weight
        x = product.reshape(folds, members, rows, -1) * self.scale + self.bias
        return self.dropout(nn.relu(x))


class LinearReader(nn.Module):
    """A linear model of the features (B, R) -> (B, O), fitted by scikit-learn."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.weight = mx.zeros((size, outputs))
        self.bias = mx.zeros((outputs,))

    def __call__(self, features: mx.array) -> mx.array:
        return features @ self.weight + self.bias


class MarginReader(nn.Module):
    """What the models of a group said of a row: cells (B, N + M) -> (B, O)."""

    def __init__(
        self, margins: Mapping[int, Margin], group: int, kind: TaskKind, outputs: int
    ) -> None:
        super().__init__()
        named = {index: each for index, each in margins.items() if each["group"] == group}
        if any(each["output"] >= outputs for each in named.values()):
            raise ConfigError(f"model.columns: expected margins of {outputs} outputs")
        self._columns = mx.array([*named], mx.int32)
        self._centers = mx.array([each["center"] for each in named.values()])
        self._scales = mx.array([each["scale"] for each in named.values()])
        sums = mx.eye(outputs)[mx.array([each["output"] for each in named.values()])]
        if kind != "regression":
            sums = SHARPNESS * sums
        self._sums = sums  # (N, O)

    def __call__(self, cells: mx.array) -> mx.array:
        margins = mx.take(cells, self._columns, axis=1)
        known = mx.where(mx.isnan(margins), 0, margins * self._scales + self._centers)
        return known @ self._sums


class TreeReader(nn.Module):
    """The boosted trees of each output, of features (B, R) -> (B, O); `baselines.boosting.Trees` are its arrays."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        shape = (outputs, TREES, NODES)
        self.feature = mx.zeros(shape)
        self.threshold = mx.zeros(shape)
        self.left = mx.zeros(shape)
        self.right = mx.zeros(shape)
        self.value = mx.zeros(shape)
        self.bias = mx.zeros((outputs,))

    def __call__(self, features: mx.array) -> mx.array:
        rows, width = features.shape
        outputs, trees, nodes = self.value.shape
        feature = _indices(self.feature, width)
        # Numbers of nodes count on from tree to tree.
        first = mx.arange(outputs * trees)[:, None] * nodes
        left = (_indices(self.left, nodes).reshape(-1, nodes) + first).reshape(-1)
        right = (_indices(self.right, nodes).reshape(-1, nodes) + first).reshape(-1)
        threshold = self.threshold.reshape(-1)
        node = mx.broadcast_to(first[:, 0], (rows, outputs * trees))
        for _ in range(LEAVES - 1):  # The longest path of a tree.
            cell = mx.take_along_axis(features, feature[node], axis=1)
            node = mx.where(cell > threshold[node], right[node], left[node])
        value = self.value.reshape(-1)[node]
        return value.reshape(rows, outputs, trees).sum(axis=2) + self.bias


def _indices(values: mx.array, size: int) -> mx.array:
    """Whole numbers from 0 to `size` - 1, whatever a file holds: MLX has no bounds checks."""
    return mx.clip(values.astype(mx.int32), 0, size - 1).reshape(-1)


class TabularHead(nn.Module):
    """Cells of a row (B, N + M) -> logits (B, O), or (F, K, B, O) in training with several folds.

    An evaluation mixes the readings of a row: those of the networks as they were at some steps of the training, as they
    are now, of a linear model, of boosted trees and of models of texts. Until `mixture` is fitted the networks of now alone are read.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        kind: TaskKind,
        outputs: int,
        fractions: Sequence[float],
        sizes: NetworkSizes,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.folds = sizes.folds
        self.num_outputs = outputs
        self.fractions = tuple(fractions)
        num_snapshots = len(self.fractions)
        self._features = Features(columns)
        networks = [
            TabularNetwork(self._features, sizes, outputs) for _ in range(1 + num_snapshots)
        ]
        self.network, *self.snapshots = networks
        self.linear = LinearReader(self._features.size, outputs)
        self.trees = []
        if outputs <= MAX_TREE_OUTPUTS:
            self.trees = [TreeReader(outputs)]
        margins = {index: each["margin"] for index, each in enumerate(columns) if "margin" in each}
        groups = sorted({each["group"] for each in margins.values()})
        self.margins = [MarginReader(margins, group, kind, outputs) for group in groups]
        shares = np.zeros(len(self.readers), np.float32)
        shares[num_snapshots] = 1
        self.shares = mx.array(shares)
        self.sharpness = mx.ones(shares.shape)
        for part in (*self.snapshots, self.linear, *self.trees):
            part.freeze()
        self.freeze(keys=["shares", "sharpness"], recurse=False)

    @property
    def readers(self) -> list[nn.Module]:
        """What is mixed, in the order of `shares`."""
        return [*self.snapshots, self.network, self.linear, *self.trees, *self.margins]

    @property
    def is_mixed(self) -> bool:
        """Whether the mixture was fitted."""
        return bool(np.count_nonzero(np.array(self.shares)) > 1)

    def __call__(self, cells: mx.array) -> mx.array:
        if not self.training:
            return self._mix(cells)
        features, codes = self._features(cells)
        logits = self.network(features, codes)
        if self.folds > 1:
            return logits
        return to_logits(to_outputs(logits, self.kind).mean(axis=(0, 1)), self.kind)

    def features(self, cells: mx.array) -> mx.array:
        """(B, R), on which the linear model is fitted."""
        return self._features(cells)[0]

    def fold_outputs(self, cells: mx.array, network: TabularNetwork) -> mx.array:
        """Probabilities or numbers (F, B, O) of the networks of each fold."""
        logits = network(*self._features(cells))
        return to_outputs(logits, self.kind).mean(axis=1)

    def _mix(self, cells: mx.array) -> mx.array:
        features, codes = self._features(cells)
        parts = []
        for index in np.flatnonzero(np.array(self.shares)).tolist():
            reader = self.readers[index]
            if isinstance(reader, TabularNetwork):
                outputs = to_outputs(reader(features, codes), self.kind).mean(axis=(0, 1))
            elif isinstance(reader, MarginReader):
                outputs = to_outputs(reader(cells), self.kind)
            else:
                outputs = to_outputs(reader(features), self.kind)
            outputs = sharpen(outputs, self.sharpness[index], self.kind)
            parts.append(self.shares[index] * outputs)
        return to_logits(reduce(operator.add, parts), self.kind)


def to_outputs(logits: mx.array, kind: TaskKind) -> mx.array:
    """Probabilities of classes or labels; numbers as they are."""
    if kind == "classification":
        return mx.softmax(logits.astype(mx.float32), axis=-1)
    if kind == "multi_label":
        return mx.sigmoid(logits.astype(mx.float32))
    return logits


def to_logits(outputs: mx.array, kind: TaskKind) -> mx.array:
    """The inverse of `to_outputs`."""
    if kind == "regression":
        return outputs
    logits = mx.log(mx.maximum(outputs, MIN_PROBABILITY))
    if kind == "multi_label":
        logits = logits - mx.log(mx.maximum(1 - outputs, MIN_PROBABILITY))
    return logits


def sharpen(outputs: mx.array, sharpness: mx.array, kind: TaskKind) -> mx.array:
    """Probabilities of which the logits are multiplied by `sharpness`, the inverse of a temperature."""
    if kind == "regression":
        return outputs
    return to_outputs(sharpness * to_logits(outputs, kind), kind)


class Tabular(nn.Module):
    """The networks of a table: cells (B, N + M) pass through to the head, which reads them.

    Args:
        columns: those of the data; null is filled in when the data are read.
        hidden_size: of the layers.
        num_layers: hidden layers.
        code_size: what the code of a column is mapped to.
        members: networks that share their matrices.
        folds: networks that are trained side by side, each without a part of the rows, by which their mixture is fitted;
            1 trains one on all rows and fits no mixture.
        dropout: fraction of activations dropped in training.
        snapshots: fractions of the training after which the networks are kept for the mixture.
    """

    causal = False
    separates_documents = True
    classifier_hidden_size = 0
    max_position_embeddings = 1
    position_limit = None
    reads_cells = True

    def __init__(
        self,
        columns: Sequence[Column] | None = None,
        hidden_size: Size = 64,
        num_layers: Size = 2,
        code_size: Size = 8,
        members: Size = 2,
        folds: Size = 4,
        dropout: Share = 0.1,
        snapshots: Sequence[Share] = (0.2, 0.5),
        *,
        vocab_size: int,
    ) -> None:
        super().__init__()
        self.hidden_size = self.output_size = self.pooled_size = hidden_size
        self.folds = folds
        self.fractions: tuple[float, ...] = ()
        if folds > 1:
            self.fractions = tuple(snapshots)
        self._columns = columns or []
        self._sizes = NetworkSizes(folds, members, code_size, hidden_size, num_layers, dropout)

    @property
    def embedding(self) -> nn.Embedding:
        """An embedding of a single token: a table has none."""
        return nn.Embedding(1, 1)

    def __call__(self, cells: mx.array, segment_ids: mx.array) -> mx.array:
        return cells

    def pool(self, cells: mx.array, segment_ids: mx.array) -> mx.array:
        return cells

    def remove_pooler(self) -> None:
        """Does nothing: there is none."""

    def new_head(self, kind: TaskKind, outputs: int) -> TabularHead:
        """The head that reads the cells; ConfigError for data without columns."""
        if not self._columns:
            expected = "expected data=table or data=text_classification"
            raise ConfigError(f"model=tabular: {expected}")
        return TabularHead(self._columns, kind, outputs, self.fractions, self._sizes)
