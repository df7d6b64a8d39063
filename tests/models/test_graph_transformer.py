import copy
import io

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from graphformer import GraphformerError
from graphformer.graphs import Features
from graphformer.models import GraphTransformer, GraphTransformerConfig, transform

NODES, EDGES, TASKS = [5, 3], [4, 2], 3


def sample(num_nodes, num_bonds, seed=0):
    """A random molecule-like graph: every bond in both directions; a node may have none."""
    draw = torch.Generator().manual_seed(seed)
    bonds = torch.randint(0, max(num_nodes, 1), (2, num_bonds), generator=draw)
    bonds = bonds[:, bonds[0] < bonds[1]].unique(dim=1)
    kinds = torch.stack([torch.randint(0, count, (bonds.shape[1],), generator=draw) for count in EDGES], dim=1)
    return Data(
        x=torch.stack([torch.randint(0, count, (num_nodes,), generator=draw) for count in NODES], dim=1),
        edge_index=torch.cat((bonds, bonds.flip(0)), dim=1),
        edge_attr=torch.cat((kinds, kinds)),
    )


def make(**settings):
    torch.manual_seed(0)
    config = GraphTransformerConfig(**{"channels": 16, "layers": 2, "heads": 4, "walk_steps": 3, **settings})
    return GraphTransformer(config, Features(NODES, 0, EDGES), TASKS), transform(config)


SIZES = [(6, 9), (1, 0), (4, 0), (9, 14)]
SETTINGS = [
    {},
    {"norm": "layer", "pooling": "mean"},
    {"virtual_node": True, "laplacian": 3},
    {"walk_steps": 0},
    {"pattern": "Edges() | Full()"},
    {"pattern": "Full()"},
    {"attention_dropout": 0.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_batch_is_its_graphs_and_every_parameter_trains(settings):
    model, prepare = make(**settings)
    samples = [prepare(sample(*size, seed)) for seed, size in enumerate(SIZES)]
    batch = next(iter(DataLoader(samples, batch_size=4)))
    out = model(batch)
    assert out.shape == (4, TASKS)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    model.eval()
    together = model(batch)
    alone = torch.cat([model(Batch.from_data_list([one])) for one in samples])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(samples[0]), alone[:1], rtol=1e-4, atol=1e-4)  # one Data, no batch


def test_numbering_of_the_nodes_does_not_matter():
    model, prepare = make(virtual_node=True)
    model.eval()
    data = sample(8, 12, seed=3)
    order = torch.randperm(8)
    renumbered = Data(x=data.x[order], edge_index=order.argsort()[data.edge_index], edge_attr=data.edge_attr)
    expected = model(prepare(data))
    torch.testing.assert_close(model(prepare(renumbered)), expected, rtol=1e-4, atol=1e-5)
    wrong = Data(x=data.x[order], edge_index=data.edge_index, edge_attr=data.edge_attr)
    assert not torch.allclose(model(prepare(wrong)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pattern", "reads"), [("Edges()", True), ("Edges() | Full()", True), ("Full()", False)])
def test_edge_categories_matter_where_the_pattern_holds_edges(pattern, reads):
    model, prepare = make(pattern=pattern)
    model.eval()
    data = sample(8, 12, seed=3)
    other = copy.copy(data)
    other.edge_attr = (data.edge_attr + 1) % torch.tensor(EDGES)
    same = torch.allclose(model(prepare(data)), model(prepare(other)), rtol=1e-4, atol=1e-5)
    assert same != reads
    assert model.reads_edges == reads


def test_the_number_of_equal_neighbours_matters():
    torch.manual_seed(0)
    config = GraphTransformerConfig(channels=16, layers=1, heads=4, walk_steps=0, pooling="mean", norm="layer")
    model = GraphTransformer(config, Features((2,)), 1).eval()
    torch.nn.init.zeros_(model.degree_embedding.weight)  # leaves the scaler alone to tell
    torch.nn.init.ones_(model.blocks[0].degree_scaler.slope)

    def star(leaves):
        tips = torch.arange(1, leaves + 1)
        edge_index = torch.stack((tips, torch.zeros_like(tips)))
        x = torch.ones(leaves + 1, 1, dtype=torch.int64)
        return transform(config)(Data(x=x, edge_index=edge_index))

    two, three = (model.blocks[0](torch.ones(n + 1, 16), star(n).attention_graph)[0] for n in (2, 3))
    assert not torch.allclose(two, three)
    model.blocks[0].degree_scaler = None
    two, three = (model.blocks[0](torch.ones(n + 1, 16), star(n).attention_graph)[0] for n in (2, 3))
    torch.testing.assert_close(two, three)


def test_relations_of_the_pattern_are_read():
    model, prepare = make(pattern="Edges(self_loops=True).as_relation(0) | Hops(2).as_relation(1)")
    assert model.blocks[0].attention.relation_bias.shape == (2, 4)
    assert model(prepare(sample(6, 9))).shape == (1, TASKS)
    assert model(prepare(sample(1, 0))).shape == (1, TASKS)


def test_without_edge_features():
    config = GraphTransformerConfig(channels=16, layers=1, heads=4, walk_steps=0)
    model = GraphTransformer(config, Features(NODES), TASKS)
    data = sample(6, 9)
    del data.edge_attr
    assert model(transform(config)(data)).shape == (1, TASKS)


def test_overfits_a_handful_of_graphs():
    model, prepare = make(dropout=0.0)
    batch = Batch.from_data_list([prepare(sample(5 + n, 8, seed=n)) for n in range(6)])
    target = torch.randn(6, TASKS)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        loss = (model(batch) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


def test_state_travels_and_reset_draws_anew():
    model, prepare = make(laplacian=2, virtual_node=True)
    batch = Batch.from_data_list([prepare(sample(6, 9)), prepare(sample(4, 5, seed=1))])
    model.eval()
    out = model(batch)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh, _ = make(laplacian=2, virtual_node=True)
    fresh.reset_parameters()
    fresh.eval()
    assert not torch.allclose(fresh(batch), out)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    torch.testing.assert_close(fresh(batch), out)


def test_autocast_runs_in_bfloat16():
    model, prepare = make(virtual_node=True)
    batch = Batch.from_data_list([prepare(sample(6, 9)), prepare(sample(4, 5, seed=1))])
    model.eval()
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(batch)
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("pattern", ["Edges()", "Edges() | Full()"])
def test_runs_in_the_dtype_of_its_weights(dtype, pattern):
    model, prepare = make(laplacian=2, virtual_node=True, pattern=pattern)
    batch = Batch.from_data_list([prepare(sample(6, 9)), prepare(sample(4, 5, seed=1))])
    model.eval()
    exact = model(batch)
    out = model.to(dtype)(batch)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)
    out.sum().backward()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("Windw(3)", "pattern must be one of .*; got 'Windw'. Did you mean Window"),
        ("Edges() |", "text must be one pattern expression; got 'Edges.. |'"),
        ("", "text must be one pattern expression; got ''"),
    ],
)
def test_a_bad_pattern_is_told_when_model_and_transform_are_made(pattern, message):
    config = GraphTransformerConfig(channels=16, pattern=pattern)
    with pytest.raises(GraphformerError, match=f"^parse: {message}"):
        GraphTransformer(config, Features(NODES, 0, EDGES), TASKS)
    with pytest.raises(GraphformerError, match=f"^parse: {message}"):
        transform(config)


def test_refuses_samples_without_edges_or_of_other_settings():
    model, prepare = make(pattern="Full()", laplacian=2)
    with pytest.raises(GraphformerError, match="batch must carry edge_index; got None. Give edges; torch.empty"):
        model(prepare(Data(x=sample(6, 9).x)))
    for name, found in (("walk_steps", "probabilities .* got .6, 5"), ("laplacian", "eigenvectors .* got .6, 5")):
        _, other = make(**{"pattern": "Full()", "laplacian": 2, name: 5})
        with pytest.raises(GraphformerError, match=found):
            model(other(sample(6, 9)))


def test_refuses_what_does_not_fit():
    model, prepare = make(laplacian=2)
    good = prepare(sample(6, 9))
    with pytest.raises(
        GraphformerError, match=r"batch must carry attention_graph; got none. Pass each sample through tr"
    ):
        model(sample(6, 9))
    lacking = copy.copy(good)
    del lacking.random_walk
    with pytest.raises(GraphformerError, match="batch must carry random_walk; got none"):
        model(lacking)
    for change, message in [
        ({"x": good.x[:, :1]}, r"x must have shape \[\*, 2\]; got \[6, 1\]"),
        ({"x": good.x.float()}, "x must hold int64 categories; got torch.float32"),
        ({"x": good.x + 3}, r"x must lie in \[0, 5\) in column 0; got 3 to 7"),
        ({"edge_attr": None}, r"edge_attr must have shape \[\*, 2\]; got None"),
        ({"edge_attr": good.edge_attr + 4}, r"edge_attr must lie in \[0, 4\) in column 0; got"),
    ]:
        bad = copy.copy(good)
        for name, value in change.items():
            bad[name] = value
        with pytest.raises(GraphformerError, match=message):
            model(bad)
    with pytest.raises(GraphformerError, match=r"node_categories must hold positive counts; got \[5, 0\]"):
        Features([5, 0])
    with pytest.raises(GraphformerError, match="num_outputs must be at least 1; got 0"):
        GraphTransformer(model.config, model.features, 0)
