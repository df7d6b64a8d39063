"""Layers, blocks and encodings over attention graphs; each is imported on first use."""

from importlib import import_module

_HOME = {
    "AddLaplacianEigenvectors": "structure",
    "AddRandomWalk": "structure",
    "AddRelativeRandomWalk": "paths",
    "AddShortestPaths": "paths",
    "AttentionalAggregation": "aggr.attentional",
    "ContentAttention": "content_attention",
    "Conversion": "conversion",
    "DegreeScaler": "degree",
    "Dropout": "dropout",
    "EdgeEncoder": "features",
    "FeedForward": "feed_forward",
    "GATConv": "conv.gat_conv",
    "GATv2Conv": "conv.gatv2_conv",
    "GatedGCN": "gated_gcn",
    "GPSConv": "conv.gps_conv",
    "GraphEncoder": "features",
    "GraphAttention": "attention",
    "LaplacianEncoding": "encodings",
    "LaplacianSetEncoding": "encodings",
    "LearnedClusters": "learned_clusters",
    "LearnedEncoding": "encodings",
    "MultiheadAttention": "multihead_attention",
    "NodeEncoder": "features",
    "RadialBasis": "radial",
    "RandomWalkEncoding": "encodings",
    "SetTransformerAggregation": "aggr.set_transformer",
    "SinusoidalEncoding": "encodings",
    "SortedBlocks": "sorted_blocks",
    "TransformerBlock": "block",
    "TransformerConv": "conv.transformer_conv",
    "convert": "conversion",
    "edge_vectors": "features",
    "laplacian_eigenvectors": "structure",
    "laplacian_spectrum": "structure",
    "positions": "encodings",
    "random_walk_probabilities": "structure",
    "relative_random_walk": "paths",
    "scaled_dot_product_attention": "functional",
    "shortest_paths": "paths",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"graphformer.nn.{_HOME[name]}"), name)
    raise AttributeError(f"module 'graphformer.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
