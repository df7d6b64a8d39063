"""PyG's layers and ours from the same weights: values, weights and every gradient, over the cross of their options."""

import itertools

import pytest
import torch
import torch_geometric.nn as pyg
from drop_in_cases import sparse_warnings

from graphformer import nn as ours
from graphformer.testing import assert_close

pytestmark = sparse_warnings

N, M, E, F = 11, 8, 40, 3
FLAGS = (True, False)
TRANSFORMER = [
    {"concat": concat, "beta": beta, "root_weight": root, "bias": bias}
    for concat, beta, root, bias in itertools.product(FLAGS, repeat=4)
]
GAT = [
    {"concat": concat, "bias": bias, "residual": residual, "add_self_loops": loops}
    for concat, bias, residual, loops in itertools.product(FLAGS, repeat=4)
] + [{"fill_value": fill} for fill in ("add", "min", "max", "mul", 0.5, torch.tensor([1.0, 2.0, 3.0]))]
GAT += [{"negative_slope": slope, "add_self_loops": False} for slope in (0.0, 1.0)]
LAYERS = [("TransformerConv", options) for options in TRANSFORMER]
LAYERS += [(name, options) for name in ("GATConv", "GATv2Conv") for options in GAT]
LAYERS += [("GATv2Conv", {"share_weights": True})]


def make_edges(adjacency, num_sources, num_targets):
    """Random pairs with duplicates and loops where the form allows them, and a last target without any."""
    edge_index = torch.stack((torch.randint(num_sources, (E,)), torch.randint(max(num_targets - 1, 1), (E,))))
    if adjacency == "edge_index":
        return edge_index, edge_index
    rows = torch.unique(edge_index[1] * num_sources + edge_index[0])
    target, source = rows // num_sources, rows % num_sources
    dense = torch.sparse_coo_tensor(
        torch.stack((target, source)), torch.ones(rows.numel()), (num_targets, num_sources)
    ).coalesce()
    sparse = dense if adjacency == "coo" else dense.to_sparse_csr()
    return sparse, torch.stack((source, target))


def gradients(out, leaves):
    pull = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad(out, leaves, pull, allow_unused=True)


def both(name, options, *, pair, adjacency, flow, edge_dim, dtype):
    """What PyG's layer and ours give and all their gradients; None where PyG refuses the combination."""
    options = dict(options, flow=flow, edge_dim=F if edge_dim else None)
    widths = (5, 6) if pair else 5
    theirs = getattr(pyg, name)(widths, 4, heads=2, **options).to(dtype)
    mine = getattr(ours, name)(widths, 4, heads=2, **options).to(dtype)
    mine.load_state_dict(theirs.state_dict())
    assert repr(mine) == repr(theirs)

    reverse = flow == "target_to_source"
    num_targets = (N if reverse and name != "TransformerConv" else M) if pair else N
    sizes = (num_targets, N) if reverse else (N, num_targets)
    edges, listed = make_edges(adjacency, *sizes)
    x = torch.randn(N, 5, dtype=dtype, requires_grad=True)
    if pair:
        x = (x, torch.randn(num_targets, 6, dtype=dtype, requires_grad=True))
    edge_attr = torch.randn(listed.shape[1], F, dtype=dtype, requires_grad=True) if edge_dim else None
    leaves = [*(x if pair else [x]), *([] if edge_attr is None else [edge_attr])]
    found = []
    for layer in (theirs, mine):
        out = layer(x, edges, edge_attr)
        again, (where, alpha) = layer(x, edges, edge_attr, return_attention_weights=True)
        assert torch.equal(again, out)
        pairs = where if where.layout == torch.strided else where.to_dense()
        found.append((out, alpha, pairs, *gradients(out, [*leaves, *layer.parameters()])))
    assert mine.why_unfused() == []
    return found


def compare(found, dtype):
    for theirs, mine in zip(*found, strict=True):
        if theirs is None or mine is None:  # a weight that one path multiplies by zero and the other leaves out
            assert all(grad is None or not grad.any() for grad in (theirs, mine))
            continue
        assert mine.shape == theirs.shape
        assert_close(mine, theirs, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), LAYERS, ids=str)
def test_same_numbers(name, options, dtype):
    for pair, edge_dim, adjacency in itertools.product(FLAGS, FLAGS, ("edge_index", "coo", "csr")):
        if pair and options.get("share_weights"):
            continue
        loops = name != "TransformerConv" and options.get("add_self_loops", True)
        if adjacency != "edge_index" and loops and (edge_dim or pair or "fill_value" in options):
            continue  # PyG knows no loops with features, or on sparse matrices that are not square
        case = {"pair": pair, "edge_dim": edge_dim, "adjacency": adjacency, "dtype": dtype}
        compare(both(name, options, flow="source_to_target", **case), dtype)
        if adjacency == "edge_index":
            compare(both(name, options, flow="target_to_source", **case), dtype)


def test_a_wrong_weight_is_seen():
    found = both(
        "GATConv", {}, pair=False, adjacency="edge_index", flow="source_to_target", edge_dim=False, dtype=torch.float64
    )
    found[1] = (found[1][0] * (1 + 1e-6), *found[1][1:])
    with pytest.raises(AssertionError):
        compare(found, torch.float64)
