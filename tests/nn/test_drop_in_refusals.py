"""What the layers refuse: in our words, and as an error of the kind that PyG raises."""

import pytest
import torch
from drop_in_cases import GATS, NAMES, C, D, F, N, each_gat, sparse_warnings, twins
from torch_geometric import EdgeIndex

from graphformer import GraphformerError
from graphformer import nn as ours

pytestmark = [pytest.mark.usefixtures("float64"), sparse_warnings]


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
WRONG = [
    (NAMES, {}, (ones(N, C), EDGES[0]), ValueError, r"edge_index must have shape \[2, E\]; got \[3\]\. Row 0 holds"),
    (NAMES, {}, (ones(N, C), EDGES.t()), ValueError, r"edge_index must have shape \[2, E\]; got \[3, 2\]"),
    (NAMES, {}, (ones(N, C), EDGES.double()), ValueError, "edge_index must have an integer dtype; got torch.float64"),
    (NAMES, {}, (ones(N, C), EDGES.tolist()), ValueError, r"edge_index must be a tensor \[2, E\], .* got list"),
    (NAMES, {}, (ones(N, C), EDGES - 1), IndexError, r"hold ids in \[0, 7\) in row [01], .* got -1. .* valid indices"),
    (NAMES, {}, (ones(2, C), EDGES), IndexError, r"edge_index must hold ids in \[0, 2\) in row 0, like .* x; got 2"),
    (NAMES, {}, ((ones(3, C), ones(2, C)), EDGES), IndexError, r"hold ids in \[0, 2\) in row 1, like .* got 2"),
    (NAMES, {"flow": "target_to_source"}, (ones(2, C), EDGES), IndexError, r"hold ids in \[0, 2\) in row 0, .* got 2"),
    (NAMES, {}, (None, EDGES), ValueError, r"x must be a tensor or a pair of tensors; got NoneType. Pass x \[N, C\]"),
    (NAMES, {}, ((ones(N, C),) * 3, EDGES), ValueError, "x must be a tensor or a pair of tensors; got Tensor, Tensor"),
    (("TransformerConv", "GATv2Conv"), {}, ((ones(N, C), None), EDGES), ValueError, "pair of .* got Tensor, NoneType"),
    (GATS, {}, (ones(2, N, C), EDGES), ValueError, r"x must have shape \[N, C\]; got \[2, 7, 6\]. .* static graphs"),
    (
        ("TransformerConv",),
        {"edge_dim": F},
        (ones(N, C), EDGES),
        ValueError,
        "edge_attr must be given where edge_dim = 3; got None. Pass edge_attr",
    ),
    (
        ("GATv2Conv",),
        {},
        (ones(N, C), EDGES, ones(3, F)),
        ValueError,
        r"edge_attr must be None where edge_dim is None; got \[3, 3\]",
    ),
    (NAMES, {"edge_dim": F}, (ones(N, C), EDGES, ones(3, 2)), ValueError, r"edge_attr must have shape \[E, 3\]; got"),
    (
        NAMES,
        {"edge_dim": F},
        (ones(N, C), EDGES, ones(2, F)),
        ValueError,
        r"edge_attr must have E = 3 rows; got \[2, 3\]",
    ),
    (
        ("GATConv",),
        {},
        (ones(N, C), EDGES, None, (N, 5)),
        ValueError,
        r"size must be that of x; got \(7, 5\). x has 7 so",
    ),
    (("GATConv",), {}, ((ones(N, C), None), EDGES, None, (5, N)), ValueError, r"size must be that of x; got \(5, 7\)"),
    (
        NAMES,
        {},
        (ones(N, C), EdgeIndex(EDGES, sparse_size=(9, 9))),
        ValueError,
        r"edge_index must have \(sources, targets\) = \(7, 7\) like x; got \(9, 9\)",
    ),
    (
        NAMES,
        {},
        (ones(N, C), torch.eye(5).to_sparse()),
        ValueError,
        r"\(sources, targets\) = \(7, 7\) like x; got \(5, 5\)",
    ),
    (
        NAMES,
        {"flow": "target_to_source"},
        (ones(N, C), torch.eye(N).to_sparse()),
        ValueError,
        'must be an edge index .* where flow is "target_to_source"; .* Flow direction "target_to_source" is invalid',
    ),
    (
        GATS,
        {"edge_dim": F},
        (ones(N, C), torch.eye(N).to_sparse(), ones(N, F)),
        NotImplementedError,
        "edge_attr must not come with a sparse matrix that is given self loops; got edge_dim = 3",
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "arguments", "error", "message"),
    [(name, *case) for names, *case in WRONG for name in names],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_what_does_not_fit(name, options, arguments, error, message):
    layer = getattr(ours, name)(C, D, **options)
    with pytest.raises(GraphformerError, match=f"^{name}: .*{message}") as caught:
        layer(*arguments)
    assert isinstance(caught.value, error)  # what PyG's own layer raises, or its parent


@each_gat
def test_a_matrix_by_columns_cannot_be_given_loops(name):
    matrix = torch.eye(N).to_sparse_csc()
    for layer in twins(name):
        with pytest.raises(ValueError, match="Unexpected sparse tensor layout"):
            layer(ones(N, C), matrix)
