import dataclasses

import pytest
import torch
from torch_geometric.data import Batch, Data

from graphformer._errors import InputError
from graphformer.graphs import Features
from graphformer.models import GatedTransformer, GatedTransformerConfig, build, transform
from graphformer.testing import assert_close

PATH = torch.tensor([[0, 1, 1, 2, 2, 1], [1, 0, 2, 1, 1, 2]])  # between 1 and 2 twice
COLUMNS = {"edge_columns": (1, 0), "edge_counts": (2, 3)}
SMALL = {"channels": 8, "layers": 1, "heads": 2, "dropout": 0.0, "virtual_node": False}


def test_a_block_is_the_formula_it_tells():
    config = GatedTransformerConfig(**SMALL, **COLUMNS)
    torch.manual_seed(0)
    data = Data(x=torch.randn(3, 4), edge_index=PATH, edge_attr=torch.randint(0, 2, (6, 2)))
    model = build(config, Features((), 4, (3, 2)), 1).double().eval()
    data.x = data.x.double()
    prepared = transform(config)(data)
    assert prepared.edge_type.tolist() == (3 * data.edge_attr[:, 1] + data.edge_attr[:, 0]).tolist()
    attention = model.blocks[0].attention
    for table in (attention.relation_bias, attention.relation_key, attention.relation_value):
        torch.nn.init.normal_(table)
    seen = []
    attention.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    model(prepared)
    (x, found) = seen[0]
    query, key, value = (lin(x).view(3, 2, 4) for lin in (attention.lin_query, attention.lin_key, attention.lin_value))
    summed = torch.zeros_like(value)
    for (source, target), kind in zip(PATH.T.tolist(), prepared.edge_type.tolist(), strict=True):
        score = (query[target] * (key[source] + attention.relation_key[kind])).sum(-1) / 2
        gate = (score + attention.relation_bias[kind]).sigmoid()
        summed[target] += gate.unsqueeze(-1) * (value[source] + attention.relation_value[kind])
    assert_close(found, attention.lin_out(summed.flatten(1)))


def test_categories_stand_beside_numbers():
    numbers, categories = torch.rand(6, 2), torch.randint(0, 2, (6, 2))
    data = Data(edge_index=PATH, edge_attr=numbers, edge_category=categories, num_nodes=3)
    alone = Data(edge_index=PATH, edge_attr=categories, num_nodes=3)
    prepare = transform(GatedTransformerConfig(**COLUMNS))
    assert torch.equal(prepare(data).edge_type, prepare(alone).edge_type)


@pytest.mark.parametrize(
    ("edge_attr", "got"),
    [
        (None, "None"),
        (torch.rand(6, 2), r"torch.float32 \[6, 2\]"),
        (torch.zeros(6, 1).long(), r"torch.int64 \[6, 1\]"),
    ],
    ids=["nothing", "numbers", "few"],
)
def test_edges_without_the_categories_are_told(edge_attr, got):
    data = Data(edge_index=PATH, edge_attr=edge_attr, num_nodes=3)
    rule = r"edge_attr must hold categories in columns \[1, 0\]; got "
    with pytest.raises(InputError, match=f"GatedTransformer: {rule}{got}. Change edge_columns"):
        transform(GatedTransformerConfig(**COLUMNS))(data)


def test_features_of_other_counts_are_told():
    with pytest.raises(
        InputError, match=r"features.edge_categories must have \[2, 3\] values in columns \[1, 0\]; got"
    ):
        GatedTransformer(GatedTransformerConfig(**COLUMNS), Features((2,), 0, (3, 4)), num_outputs=1)


def test_with_the_layer_norm_a_graph_in_training_is_by_itself():
    draw = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 2, (6, 2), generator=draw)
    config = GatedTransformerConfig(**SMALL, **COLUMNS, norm="layer")
    samples = [Data(x=torch.randn(3, 4, generator=draw), edge_index=PATH, edge_attr=edges) for _ in range(2)]
    samples = [transform(config)(data) for data in samples]
    for norm in ("layer", "batch"):
        model = build(dataclasses.replace(config, norm=norm), Features((), 4, (3, 2)), 1).train()
        together = model(Batch.from_data_list(samples))
        alone = torch.cat([model(data) for data in samples])
        assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5) == (norm == "layer")


def test_an_unknown_norm_is_told():
    with pytest.raises(InputError, match="GatedTransformerConfig: norm must be one of batch, layer; got 'bach'. Did"):
        GatedTransformerConfig(norm="bach")
