"""Trees against walks from node to node, and what they refuse."""

import pytest
import torch
from pattern_cases import edge_matrix, predicate
from torch_geometric.data import Batch, Data

from graphformer import GraphformerError
from graphformer.patterns import Causal, Tree, Window


def tree(parent):
    return Data(parent=torch.tensor(parent), num_nodes=len(parent))


def generations(parent):
    """generations[i, j]: how many generations i lies below j; -1 where it does not."""
    out = torch.full((len(parent), len(parent)), -1)
    for node in range(len(parent)):
        above, steps = node, 0
        while above >= 0:
            out[node, above] = steps
            above, steps = parent[above], steps + 1
    return out


FOREST = [3, 3, -1, 2, 1, 1, 4, -1, 7]


@pytest.mark.parametrize("up", [None, 0, 1, 2, 50])
@pytest.mark.parametrize("down", [None, 0, 1, 3])
def test_ancestors_and_descendants(up, down):
    below = generations(FOREST)
    seen_up = (below >= 0) & (below <= (99 if up is None else up))
    seen_down = (below.t() >= 0) & (below.t() <= (99 if down is None else down))
    expected = seen_up | seen_down
    assert torch.equal(edge_matrix(Tree(up, down), tree(FOREST)) == 1, expected)
    assert torch.equal(predicate(Tree(up, down), tree(FOREST)), expected)


def test_a_batch_of_pyg_keeps_places_in_the_set():
    samples = [tree(FOREST), tree([-1]), tree([1, -1, 1])]
    expected = torch.block_diag(*(edge_matrix(Tree(), sample) for sample in samples))
    assert torch.equal(edge_matrix(Tree(), Batch.from_data_list(samples)), expected)


def test_a_path_is_causal_and_a_step_is_a_window():
    path = tree([-1, 0, 1, 2, 3])
    assert Tree(down=0).on(path) == Causal().on(5)
    assert Tree(1, 1).on(path) == Window(1).on(5)


def test_large_trees_cost_their_depth():
    size = 65_536
    parent = (torch.arange(size) - 1) // 2
    parent[0] = -1
    heap = Data(parent=parent, num_nodes=size)
    depth = torch.arange(1, size + 1).log2().floor().long()
    assert Tree(down=0).count(heap) == int((depth + 1).sum())
    long_path = Data(parent=torch.arange(-1, size - 1), num_nodes=size)
    assert Tree(2, 1).count(long_path) == 4 * size - 4


@pytest.mark.parametrize("root", ["first", "last"])
def test_a_path_of_any_length_costs_its_nodes(root):
    node = torch.arange(65_536)
    parent = node - 1 if root == "first" else torch.where(node == 65_535, -1, node + 1)
    (term,) = Tree().lower(Data(parent=parent, num_nodes=65_536))
    assert (term.num_pairs, term.runs.start.numel()) == (65_536**2, 65_536)


@pytest.mark.parametrize("up", [None, 0, 1, 2, 3, 6, 7, 8, 10**9])
def test_generations_of_a_deep_random_tree(up):
    parent = [int(torch.randint(max(node - 5, 0), node, ())) if node else -1 for node in range(90)]
    below = generations(parent)
    expected = (below >= 0) & (below <= (99 if up is None else up))
    assert torch.equal(edge_matrix(Tree(up, 0), tree(parent)) == 1, expected)
    assert torch.equal(edge_matrix(Tree(0, up), tree(parent)) == 1, expected.t())


def test_no_nodes():
    assert Tree().on(Data(parent=torch.zeros(0, dtype=torch.int64), num_nodes=0)).size == (0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tree(-1), "Tree: up must be an integer, 0 or more"),
        (lambda: Tree(down=1.5), "Tree: down must be an integer, 0 or more"),
        (lambda: Tree().on(3), r"Tree\(\): nodes must hold parent; got none. Set data.parent"),
        (lambda: Tree().on((tree([-1]), tree([-1]))), r"nodes must be one node set with parent; got a \(keys"),
        (lambda: Tree().on(Data(parent=torch.zeros(2, 1).long(), num_nodes=2)), r"= \[2\]; got \[2, 1\]"),
        (lambda: Tree().on(Data(parent=torch.zeros(2), num_nodes=2)), "nodes.parent must hold integers"),
        (lambda: Tree().on(tree([-1, 5])), "own set of 2 nodes; got 5 at node 1"),
        (lambda: Tree().on(tree([-2])), "nodes.parent must be -1 or a place.*got -2 at node 0"),
        (
            lambda: Tree().on(tree([-1, 2, 3, 1])),
            "lead from each node to a root; got a cycle above node 1. Mark",
        ),
        (lambda: Tree(0, 0).on(tree([0])), "got a cycle above node 0"),
        (lambda: Tree(1, 0).allows(torch.tensor(0), torch.tensor(0), tree([1, 0])), "got a cycle above node 0"),
        (
            lambda: Tree().on(Data(parent=torch.tensor([-1, -1, 2]), num_nodes=3, ptr=torch.tensor([0, 1, 3]))),
            "own set of 2 nodes; got 2 at node 2",
        ),
    ],
    ids=str,
)
def test_refusals(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()
