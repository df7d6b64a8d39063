"""The public contract of content patterns: ours keep it, and each law sees a rule that breaks it."""

from dataclasses import dataclass

import pytest
import torch
from torch_geometric.data import Batch, Data

from graphformer import GraphformerError
from graphformer.patterns import Clusters, Content, Hash, TopK
from graphformer.testing import check_content

MEMBERS = [Hash(4), Hash(6, rounds=3, seed=9), TopK(1), TopK(4), Clusters(3)]


@pytest.mark.parametrize("content", MEMBERS, ids=repr)
def test_ours_keep_the_laws(content):
    check_content(content)
    check_content(content, nodes=7)
    check_content(content, nodes=Batch.from_data_list([Data(num_nodes=3), Data(num_nodes=5)]))


@dataclass(frozen=True)
class Positive(Content):
    """The keys whose first channel is above 0, but for one fault."""

    fault: str = "none"

    def _pairs(self, query, key, sets, pattern):
        inside = sets.query_set[:, None] == sets.key_set
        if self.fault == "sets":
            inside = torch.ones_like(inside)
        chosen = (key[:, :, 0].t() > 0)[:, None] & inside
        if self.fault == "batch":
            chosen &= sets.num_keys < 20
        if self.fault == "draw":
            chosen &= torch.rand(chosen.shape) > 0.5
        head, i, j = chosen.nonzero().unbind(1)
        other = (head + 1) % query.shape[1] if self.fault == "heads" else head
        query, key = head * sets.num_queries + i, other * sets.num_keys + j
        return (query.repeat(2), key.repeat(2)) if self.fault == "twice" else (query, key)

    def __eq__(self, other):
        return self.fault != "equality" and type(other) is type(self)

    def __hash__(self):
        return 1


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("heads", r"pairs stay inside their heads; see query \d+, key \d+"),
        ("sets", r"pairs stay inside their sets; see query 0, key \d+"),
        ("twice", r"each pair is there once; see query \d+, key \d+"),
        ("draw", "equal vectors choose equal pairs"),
        ("batch", r"a set chooses alone as it does in a batch; see set \d"),
        ("equality", "equal rules have equal hashes"),
    ],
)
def test_a_broken_rule_is_found_out(fault, law):
    check_content(Positive())
    with pytest.raises(AssertionError, match=rf"Positive\(fault='{fault}'\) breaks a law: {law}"):
        check_content(Positive(fault))


def test_queries_are_not_taken_for_keys():
    @dataclass(frozen=True)
    class OneSet(Content):
        def _pairs(self, query, key, sets, pattern):
            ids = torch.arange(query.shape[1] * sets.num_queries)
            return ids, ids

    check_content(OneSet(), nodes=[4, 0, 3])
    with pytest.raises(
        GraphformerError, match="OneSet.select: pairs must hold each key as a folded id in .0, 60.; got"
    ):
        check_content(OneSet(), nodes=([5, 0, 3, 12], [5, 0, 3, 13]))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((torch.tensor([6]), torch.tensor([0])), r"each query as a folded id in \[0, 6\); got 6. Node i of head h is"),
        ((torch.tensor([0]), torch.tensor([-1])), r"each key as a folded id in \[0, 6\); got -1"),
        ((torch.zeros(2), torch.zeros(2)), r"each query in an int64 tensor of shape \[E\]; got torch.float32 \[2\]"),
        (
            (torch.tensor([0]), torch.tensor([[0]])),
            r"each key in an int64 tensor of shape \[E\]; got torch.int64 \[1, 1\]",
        ),
        ((torch.tensor([0]), [0]), r"each key in an int64 tensor of shape \[E\]; got list"),
        ((torch.tensor([0, 1]), torch.tensor([0])), "hold as many queries as keys; got 2 and 1"),
    ],
    ids=str,
)
def test_pairs_that_are_no_folded_ids_are_refused(pairs, message):
    @dataclass(frozen=True)
    class Given(Content):
        def _pairs(self, query, key, sets, pattern):
            return pairs

    with pytest.raises(GraphformerError, match="Given.select: pairs must hold.*" + message.removeprefix("hold")):
        Given().select(torch.ones(3, 2, 1), torch.ones(3, 2, 1), 3)
