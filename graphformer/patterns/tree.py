"""Trees: nested brackets, syntax, taxonomies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Tree(Pattern):
    """Each node attends to itself, to its ancestors and to its descendants (`data.parent`).

    `data.parent` holds the place of each node's parent in the node's own set, -1 for a root; a set may hold several
    trees. Places in the set stay right when PyG collates samples into a batch, which adds nothing to `parent`. Time and
    memory are those of the runs of keys: a line of ancestors with consecutive places, as in depth-first order, is one,
    so that a path of any length costs its nodes. In another order they are those of the pairs, the number of nodes
    times the depth that is seen; limit `up` and `down` there where trees are deep.

    Args:
        up: Generations of ancestors seen, 0 or more. Default: all.
        down: Generations of descendants seen, 0 or more. Default: all.

    Raises:
        InputError: Data without `parent`, or one of another shape, dtype or range, or with a cycle.

    Example:
        >>> from torch_geometric.data import Data
        >>> brackets = Data(parent=torch.tensor([-1, 0, 1, 0]), num_nodes=4)
        >>> Tree(up=1, down=0).on(brackets).edge_index
        tensor([[0, 0, 1, 1, 2, 0, 3],
                [0, 1, 1, 2, 2, 3, 3]])
    """

    up: int | None = None
    down: int | None = None

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            if getattr(self, name) is not None:
                check_whole(self, name, low=0)

    def _lower(self, sets: NodeSets) -> list[Term]:
        parent = _read_parent(sets)
        up = _ancestors(parent, self.up)
        down = up if self.down == self.up else _ancestors(parent, self.down)
        return [RunTerm(up.union(down.transpose()))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        parent = _read_parent(sets)
        up, down = (_is_ancestor(parent, *pair) for pair in ((query, key), (key, query)))
        seen_up = (up >= 0) & (up <= (sets.num_queries if self.up is None else self.up))
        return seen_up | ((down >= 0) & (down <= (sets.num_queries if self.down is None else self.down)))


def _ancestors(parent: Tensor, generations: int | None) -> KeyRuns:
    """Each node and its ancestors, as many generations up, or all."""
    num_nodes = parent.numel()
    node = torch.arange(num_nodes, device=parent.device)
    itself = reached = KeyRuns.from_ranges(node, node + 1, num_nodes)
    # `reached` holds n generations, the node itself the first, and `above` is n generations up: 2 n generations are
    # those reached from either. The binary digits of the number wanted tell where one more goes in between.
    above = parent
    wanted = 2 ** num_nodes.bit_length() if generations is None else generations + 1
    for digit in f"{wanted:b}"[1:]:
        if not bool((above >= 0).any()):
            break
        reached = reached.union(reached.rows(above))
        above = _follow(above, above)
        if digit == "1":
            reached = itself.union(reached.rows(parent))
            above = _follow(parent, above)
    return reached


def _follow(first: Tensor, second: Tensor) -> Tensor:
    """Where ``second`` leads from where ``first`` leads; -1 where either leads nowhere. Shape `[N]`, int64."""
    return torch.where(first < 0, -1, second[first])


def _is_ancestor(parent: Tensor, node: Tensor, other: Tensor) -> Tensor:
    """How many generations each node lies below the other one, -1 where it does not. Shape `[E]`, int64."""
    out = torch.full_like(node, -1)
    generation = 0
    while bool((node >= 0).any()):
        out[(node >= 0) & (node == other)] = generation
        node = torch.where(node >= 0, parent[node], -1)
        generation += 1
    return out


def _read_parent(sets: NodeSets) -> Tensor:
    """The global id of each node's parent, -1 for a root, checked. Shape `[N]`, int64."""
    where, size = sets.where, sets.num_queries
    remedy = "Set data.parent: the place of each node's parent in its set, -1 for a root."
    require(not sets.is_bipartite, where, "nodes", "be one node set with parent", "a (keys, queries) tuple", remedy)
    parent: Any = getattr(sets.nodes[0], "parent", None)
    require(isinstance(parent, Tensor), where, "nodes", "hold parent", "none", remedy)
    require(parent.shape == (size,), where, "nodes.parent", f"have shape [N] = [{size}]", list(parent.shape), remedy)
    integer = not (parent.is_floating_point() or parent.is_complex() or parent.dtype == torch.bool)
    require(integer, where, "nodes.parent", "hold integers", parent.dtype, remedy)
    parent = parent.long()
    wrong = ((parent < -1) | (parent >= sets.set_keys)).nonzero()
    if wrong.numel():
        node = int(wrong[0])
        rule = f"be -1 or a place in the node's own set of {int(sets.set_keys[node])} nodes"
        require(False, where, "nodes.parent", rule, f"{int(parent[node])} at node {node}", remedy)
    parent = torch.where(parent < 0, -1, parent + sets.key_start)
    _refuse_cycles(parent, where)
    return parent


def _refuse_cycles(parent: Tensor, where: str) -> None:
    size = parent.numel()
    ancestor = torch.cat((torch.where(parent < 0, size, parent), parent.new_tensor([size])))  # above a root is `size`
    for _ in range(size.bit_length()):
        ancestor = ancestor[ancestor]  # as many generations up as all nodes together, by doubling
    stuck = (ancestor < size).nonzero()
    found = f"a cycle above node {int(stuck[0])}" if stuck.numel() else ""
    require(not found, where, "nodes.parent", "lead from each node to a root", found, "Mark a root with -1.")
