"""The common face of the data sets: graphs, nodes or links with labels, their split, and the field's measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor
from torch_geometric.data import Data

from graphformer._checks import require
from graphformer.graphs.features import Features

Level = Literal["graph", "node", "link"]
TaskType = Literal[
    "regression", "binary classification", "multiclass classification", "subtoken prediction", "link prediction"
]


@dataclass(frozen=True, eq=False)
class Task:
    """What is predicted, from which graphs, and how it is measured.

    Each of `train`, `valid` and `test` is a sequence of graphs; a long one may make a graph anew whenever it is asked
    for, so that what is written to it is lost. Where one graph holds all three parts (ogbn-*, ogbl-*,
    Planetoid) each sequence has one `Data`; the three share their tensors and differ in what is asked of them:

    * level "graph": `y` has one row a graph;
    * level "node": `y` has one row for each entry of `target_index` [T] int64; without it, one a node;
    * level "link": `y` has one row a column of `pair_index` [2, P] int64, 1 for a link and 0 for none. Training graphs
      hold the links only; what is no link is drawn in training. Elsewhere all links come first, and under "mrr" the
      rivals of the first link follow, then those of the second, as many for each.

    `x`, `edge_attr` and their categories are as :class:`~graphformer.graphs.Features` says; `edge_index` [2, e]
    holds both directions of an undirected edge.

    Attributes:
        name: Name of the data set, as :func:`graphformer.data.load` takes it.
        level: "graph", "node" or "link".
        train: Training graphs.
        valid: The same for choosing a model.
        test: The same for reporting it.
        task_type: "regression" and "binary classification": `y` [*, num_tasks] float32, NaN where a label is missing.
            "multiclass classification": `y` [*, 1] int64, -1 where missing. "subtoken prediction": `y` [*, L] int64,
            the words of a name, filled up with -1; words of `num_outputs` and above are not in the vocabulary.
            "link prediction": `y` [P, 1] float32.
        num_tasks: Columns of `y` that are measured; 1 but for several labels at once.
        num_outputs: Outputs of a model for a row of `y`: num_tasks; the number of classes; or for subtokens the number
            of words that it may say at each of `length` places.
        metric: Name of the measure, such as "rmse", "rocauc", "ap", "acc", "F1", "hits@50", "mrr", "mae".
        higher_is_better: Direction of the measure.
        features: What the nodes and edges carry.
        measure: What :meth:`evaluate` calls; the official evaluator for OGB data sets.
        length: Words that are predicted for each row (subtoken prediction only); 1 otherwise.
        smiles: Gives the SMILES of a part's molecules ("train", "valid" or "test"), in the order of its graphs; read
            when it is called. None (default) where the graphs are no molecules or their SMILES are not at hand.
        task_names: Names of the columns of `y`, one for each of `num_tasks`; empty (default) where nobody tells them.

    Raises:
        InputError: There are names, and not as many as tasks.
    """

    name: str
    level: Level
    train: Sequence[Data] = field(repr=False)
    valid: Sequence[Data] = field(repr=False)
    test: Sequence[Data] = field(repr=False)
    task_type: TaskType
    num_tasks: int
    num_outputs: int
    metric: str
    higher_is_better: bool
    features: Features
    measure: Callable[[Tensor, Tensor], float] = field(repr=False)
    length: int = 1
    smiles: Callable[[str], list[str]] | None = field(default=None, repr=False)
    task_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rule, remedy = f"be empty or name the {self.num_tasks} tasks", "Give one name a column of y, or none."
        fits = len(self.task_names) in (0, self.num_tasks)
        require(fits, "Task", "task_names", rule, f"{len(self.task_names)} names", remedy)

    def evaluate(self, y_true: Tensor, y_pred: Tensor) -> float:
        """The measure over a whole split.

        Args:
            y_true: Labels, as `y` of the split's graphs, stacked.
            y_pred: Predictions with as many rows. Regression: values `[*, num_tasks]`. Binary classification: any
                increasing score, `[*, num_tasks]`. Multiclass classification: scores `[*, num_outputs]`. Subtokens:
                words `[*, length]` int64; -1 says nothing, `num_outputs` and above say a word that is not in the
                vocabulary, which is wrong always. Links: scores `[P, 1]`.

        Raises:
            InputError: The numbers of rows differ, or the shapes are not those above.
            DataError: The measure is not defined on these labels (ROC-AUC without both classes).
        """
        shape = tuple(y_true.shape)
        columns = {"multiclass classification": self.num_outputs, "subtoken prediction": self.length}
        width = columns.get(self.task_type, self.num_tasks)
        fits = y_true.dim() == 2 and (self.task_type == "subtoken prediction" or shape[1] == self.num_tasks)
        rule, remedy = f"have shape [rows, {self.num_tasks}]", "Stack one row of labels after the other."
        require(fits, "evaluate", "y_true", rule, list(shape), remedy)
        fits = tuple(y_pred.shape) == (shape[0], width)
        rule = f"have shape [{shape[0]}, {width}]"
        require(fits, "evaluate", "y_pred", rule, list(y_pred.shape), "Give one row of predictions a row of labels.")
        return self.measure(y_true, y_pred)


def rmse(y_true: Tensor, y_pred: Tensor) -> float:
    """Root mean squared error of each task over its labelled graphs, averaged over the tasks.

    Example:
        >>> import torch
        >>> rmse(torch.tensor([[0.0], [2.0], [float("nan")]]), torch.tensor([[3.0], [6.0], [1.0]]))
        3.5355339059327378
    """
    y_true, y_pred = y_true.double(), y_pred.double()
    known = ~y_true.isnan()
    squares = (y_pred - y_true).square().where(known, 0.0)
    return float((squares.sum(0) / known.sum(0)).sqrt().mean())
