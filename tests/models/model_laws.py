"""What every model must do, whatever it is made of. `small` gives the settings that the laws are tried at."""

import dataclasses

import torch
from torch_geometric.data import Batch, Data

from graphformer.data import from_smiles_list, molecule_features
from graphformer.graphs import Features
from graphformer.models import build, transform
from graphformer.testing import assert_close

FEATURES = Features(node_categories=(5, 3), edge_categories=(4, 2))
OUTPUTS = 3
EMPTY = torch.empty(2, 0, dtype=torch.int64)
# Two rings of four: some pairs have two shortest paths. Yet all eigenvalues of the Laplacian differ, and each
# eigenvector has one entry of largest size, so that the Laplacian encoding does not hang on the numbering.
BONDS = torch.tensor([[0, 1, 2, 3, 4, 5, 3, 6, 7, 4, 1], [1, 2, 3, 4, 5, 0, 6, 7, 8, 9, 4]])
CHAINS = ["CCO", "CC(=O)O", "CCN(CC)CC", "O=C=O", "N#CC=C", "C"]
SMILES = [*CHAINS, "c1ccccc1", "C1CCCCC1O", "CC(C)Cc1ccc(C)cc1", "FC(F)(F)c1ccncc1"]


def small(kind, **settings):
    """A model's settings with two narrow layers and no dropout, so far as it has such settings."""
    names = {field.name for field in dataclasses.fields(kind)}
    default = {"channels": 32, "layers": 2, "heads": 4, "dropout": 0.0, "attention_dropout": 0.0}
    default |= {"edge_columns": (), "edge_counts": ()}  # the laws are tried on several kinds of edge features
    return kind(**{name: value for name, value in (default | settings).items() if name in names})


def sample(num_nodes, bonds, seed=0):
    """A graph with random categories; every bond in both directions with one feature."""
    draw = torch.Generator().manual_seed(seed)
    kinds = _categories(bonds.shape[1], FEATURES.edge_categories, draw)
    return Data(
        x=_categories(num_nodes, FEATURES.node_categories, draw),
        edge_index=torch.cat((bonds, bonds.flip(0)), dim=1),
        edge_attr=torch.cat((kinds, kinds)),
    )


def random_sample(num_nodes, num_bonds, seed=0):
    """The same on random bonds, which may leave nodes without any."""
    draw = torch.Generator().manual_seed(seed)
    bonds = torch.randint(0, max(num_nodes, 1), (2, num_bonds), generator=draw)
    return sample(num_nodes, bonds[:, bonds[0] < bonds[1]].unique(dim=1), seed)


def renumbered(data, order):
    """The same graph where node `order[i]` is the i-th, its edges in another order too."""
    edges = torch.randperm(data.num_edges)
    return Data(x=data.x[order], edge_index=order.argsort()[data.edge_index[:, edges]], edge_attr=data.edge_attr[edges])


def make(config, level="graph", features=FEATURES, outputs=OUTPUTS):
    """A model and its transform; the weights follow from the seed of the test."""
    return build(config, features, outputs, level), transform(config)


def make_lively(config, level):
    """The same in evaluation, with weights so large that every part tells; some models start with parts that hardly do.

    In float64, for the numbers grow with the weights.
    """
    model, prepare = make(config, level)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return model.double().eval(), prepare


def check_permutation(config, level):
    """Numbering the nodes otherwise numbers a graph's node outputs otherwise, and changes nothing else."""
    model, prepare = make_lively(config, level)
    data = sample(10, BONDS)
    pairs = torch.tensor([[0, 2, 5, 9], [4, 2, 1, 3]])
    order = torch.randperm(10)
    other = renumbered(data, order)
    data.pair_index, other.pair_index = pairs, order.argsort()[pairs]
    out, again = model(prepare(data)), model(prepare(other))
    assert_close(again, out[order] if level == "node" else out, dtype=torch.float32)
    other.edge_index = data.edge_index
    moved = model(prepare(other))  # the nodes moved and their edges did not
    assert not torch.allclose(moved, again, rtol=1e-3, atol=1e-4)


def check_batching(config, level="graph"):
    """A batch gives what its graphs give one by one; among them a graph of one node and a graph without edges."""
    model, prepare = make_lively(config, level)
    samples = [random_sample(*size, seed) for seed, size in enumerate([(6, 9), (1, 0), (4, 0), (9, 14)])]
    for data in samples:
        nodes = torch.arange(data.num_nodes)
        data.pair_index, data.target_index = torch.stack((nodes, nodes.flip(0))), nodes.flip(0)
    samples = [prepare(data) for data in samples]
    together = model(Batch.from_data_list(samples))
    assert together.isfinite().all()
    assert_close(together, torch.cat([model(Batch.from_data_list([one])) for one in samples]), dtype=torch.float32)
    assert_close(model(samples[0]), model(Batch.from_data_list(samples[:1])), dtype=torch.float32)


def check_degenerate(config):
    """Graphs of one node, without edges, alone in a batch of training, give finite outputs and gradients."""
    for sizes in ([1], [1, 1], [3], [2, 1]):
        model, prepare = make(config)
        out = model(Batch.from_data_list([prepare(sample(size, EMPTY)) for size in sizes]))
        assert out.shape == (len(sizes), OUTPUTS)
        out.square().sum().backward()
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(torch.isfinite(value).all() for value in (out, *grads))


def check_without_edge_features(config):
    """Edges may carry nothing, and features may be numbers."""
    for features in (Features(FEATURES.node_categories), Features((), 4, (), 3), Features()):
        model, prepare = make(config, features=features)
        data = sample(10, BONDS)
        x, edge_attr = torch.randn(10, 4), torch.randn(data.num_edges, 3)
        data.x = data.x if features.node_categories else x
        data.edge_attr = edge_attr if features.edge_channels else None
        data.num_nodes = 10
        out = model(Batch.from_data_list([prepare(data)] * 2))
        assert out.shape == (2, OUTPUTS)
        assert out.isfinite().all()


def check_graph_numbers(config):
    """What graphs carry as a whole is read: graph by graph, with gradients, and numbers of any size."""
    model, prepare = make(config, features=dataclasses.replace(FEATURES, graph_channels=3))
    samples = [prepare(random_sample(8, 12, seed)) for seed in range(4)]
    for data in samples:
        data.graph_attr = torch.randn(1, 3) * torch.tensor([1.0, 100.0, 0.0])
    model(Batch.from_data_list(samples)).square().sum().backward()
    grads = [parameter.grad for parameter in model.head.parameters()]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads)
    model.eval()
    out = model(Batch.from_data_list(samples))
    assert_close(out, torch.cat([model(Batch.from_data_list([one])) for one in samples]))
    samples[2].graph_attr = samples[2].graph_attr + 2.0
    moved = (model(Batch.from_data_list(samples)) - out).abs().amax(1)
    assert moved[2] > 1e-4
    assert moved[[0, 1, 3]].max() == 0.0


def check_gradients(config, level="graph"):
    """Every parameter has a finite gradient, and some parameter of every tensor a gradient that is not zero."""
    model, prepare = make(config, level)
    batch = Batch.from_data_list([prepare(random_sample(8, 12, seed)) for seed in range(4)])
    batch.pair_index = torch.tensor([[0, 9, 17], [5, 8, 30]])
    model(batch).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all() and parameter.grad.any()), name


def check_deterministic(config):
    """One seed makes one model, which says the same twice; what is saved and loaded is the same model."""
    batch = Batch.from_data_list([transform(config)(random_sample(8, 12, seed)) for seed in range(3)])
    outs = []
    for _ in range(2):
        torch.manual_seed(1)
        model, _ = make(config)
        model.eval()
        outs += [model(batch), model(batch)]
    assert all(torch.equal(outs[0], out) for out in outs)
    fresh, _ = make(config)
    fresh.reset_parameters()
    fresh.eval()
    assert not torch.allclose(fresh(batch), outs[0])
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(batch), outs[0])


def check_precisions(config):
    """A model runs in the dtype of its weights, and under autocast."""
    model, prepare = make(config)
    batch = Batch.from_data_list([prepare(random_sample(8, 12, seed)) for seed in range(3)])
    model.eval()
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(batch)
    rough.float().sum().backward()
    torch.testing.assert_close(rough.float(), exact, rtol=0.2, atol=0.2)
    for dtype in (torch.float64, torch.bfloat16):
        out = model.to(dtype)(batch)
        assert out.dtype == dtype
        out.sum().backward()
        torch.testing.assert_close(out.float(), exact, rtol=0.2, atol=0.2)


def check_ten_molecules(config, steps=200):
    """Ten molecules with labels drawn at random are learned by heart: a hundredth of the labels' variance is left.

    Without Laplacian eigenvectors, whose signs are drawn anew at every step of training.
    """
    if hasattr(config, "laplacian"):
        config = dataclasses.replace(config, laplacian=0)
    model, prepare = make(config, features=molecule_features(), outputs=1)
    batch = Batch.from_data_list([prepare(data) for data in from_smiles_list(SMILES).samples])
    labels = torch.randn(len(SMILES), 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(steps):
        optimizer.zero_grad()
        (model(batch) - labels).square().mean().backward()
        optimizer.step()
        if step % 10 == 9:
            model.eval()
            with torch.no_grad():
                left = (model(batch) - labels).square().mean() / labels.var()
            model.train()
            if left < 0.01:
                return
    raise AssertionError(f"{left:.3f} of the variance is left after {steps} steps")


def _categories(count, categories, draw):
    return torch.stack([torch.randint(0, values, (count,), generator=draw) for values in categories], dim=1)
