"""One small module a rival; each says itself what it cannot run."""

from benchmarks.case import Provider
from benchmarks.gpu import full_graph, rivals
from benchmarks.gpu import ours as on_gpu
from benchmarks.providers import building, dense, dgl, drop_in, edge_lists, flex, masks, ours, pyg, pyg_layers

_ALL = (*ours.PROVIDERS, *pyg.PROVIDERS, *pyg_layers.PROVIDERS, dgl.PROVIDER, *dense.PROVIDERS, flex.PROVIDER)
_MORE = (*drop_in.PROVIDERS, *masks.PROVIDERS, *edge_lists.PROVIDERS)
_GPU = (*on_gpu.PROVIDERS, *full_graph.PROVIDERS, *rivals.PROVIDERS)
PROVIDERS: dict[str, Provider] = {provider.name: provider for provider in (*_ALL, *building.PROVIDERS, *_MORE, *_GPU)}
OURS = ("native", "reference", "auto", "triton")

__all__ = ["OURS", "PROVIDERS"]
