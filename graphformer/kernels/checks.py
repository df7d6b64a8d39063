"""What `attend` and `attention_weights` accept: rank, shape, dtype, device, range, in this order."""

from __future__ import annotations

import torch
from torch import Tensor

from graphformer._checks import refuse, require_choice
from graphformer.graphs import AttentionGraph
from graphformer.kernels.problem import Additive, Options, Tensors

NORMALIZERS = ("softmax", "relu", "sigmoid")
SCORES = ("dot", "additive")
ACTIVATIONS = ("leaky_relu", "tanh")


def check_graph(graph: object, where: str) -> None:
    """Refuse what is not an attention graph, or is baked into a program that would not check it again."""
    if not (isinstance(graph, AttentionGraph)):
        refuse(
            where,
            "graph",
            "be an AttentionGraph",
            type(graph).__name__,
            "Make one with AttentionGraph.from_edge_index(edge_index, num_nodes=N) or pattern.on(nodes).",
        )
    if torch.jit.is_tracing():  # a trace holds the graph, and no check of what comes later
        remedy = "Use torch.compile or torch.export."
        refuse(where, "graph", "be checked against the tensors in every call", "a trace by torch.jit", remedy)


def check_types(named: dict[str, object], where: str) -> None:
    """Refuse what is no dense tensor; None is left to the signature, but for query, key and value."""
    for name, tensor in named.items():
        if tensor is None and name not in ("query", "key", "value"):
            continue
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            got = f"a {tensor.layout} tensor" if isinstance(tensor, Tensor) else type(tensor).__name__
            refuse(where, name, "be a dense tensor", got, "Convert it with torch.as_tensor, or .to_dense().")


def check_score(score: object, where: str) -> None:
    """Refuse a score that is no known name, no Additive and no function."""
    if isinstance(score, Additive):
        require_choice(score.activation, ACTIVATIONS, where, "activation of the additive score")
        if not _is_number(score.negative_slope):
            refuse(where, "negative_slope", "be a number", repr(score.negative_slope), "The default is 0.2.")
        return
    if callable(score):
        return
    require_choice(str(score), SCORES, where, "score", "Or pass Additive(weight), or a function of (query, key) pairs.")


def check_tensors(tensors: Tensors, graph: AttentionGraph, where: str) -> None:
    """Refuse tensors that do not fit the graph or each other."""
    _check_nodes(tensors, graph, where)
    sizes = {
        "E": graph.num_edges,
        "H": tensors.query.shape[1],
        "D": tensors.query.shape[2],
        "Dv": 0 if tensors.value is None else tensors.value.shape[2],
        "R": graph.num_relations,
    }
    _check_relations(tensors, graph, where)
    _check_edges(tensors, where)
    if tensors.edge_attr is not None:
        sizes["F"] = tensors.edge_attr.shape[-1]
    shapes = {
        "weight": ("H", "D"),
        "bias": ("E", "H"),
        "relation_bias": ("R", "H"),
        "relation_key": ("R", "H", "D"),
        "relation_value": ("R", "H", "Dv"),
        "edge_attr": ("E", "F"),
        "edge_key": ("F", "H", "D"),
        "edge_value": ("F", "H", "Dv"),
    }
    for name, letters in shapes.items():
        tensor: Tensor | None = getattr(tensors, name)
        if tensor is not None:
            _check_shape(tensor, name, letters, sizes, where)
    for name, tensor in tensors._asdict().items():
        if tensor is not None:
            _check_kind(tensor, name, tensors.query, graph, where)


def check_options(options: Options, where: str) -> None:
    """Refuse options out of range."""
    require_choice(options.normalizer, NORMALIZERS, where, "normalizer")
    if not (_is_number(options.dropout) and 0 <= options.dropout < 1):
        refuse(where, "dropout", "lie in [0, 1)", options.dropout, "Pass the probability to drop.")


def check_scale(scale: object, where: str) -> None:
    """Refuse a scale that is not a plain number."""
    if not _is_number(scale):
        refuse(where, "scale", "be a number", type(scale).__name__, "Multiply the query by a scale that is learned.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_nodes(tensors: Tensors, graph: AttentionGraph, where: str) -> None:
    query, key, value = tensors.query, tensors.key, tensors.value
    for name, tensor, letters in (
        ("query", query, "[N, H, D]"),
        ("key", key, "[M, H, D]"),
        ("value", value, "[M, H, Dv]"),
    ):
        if tensor is not None and not (isinstance(tensor, Tensor) and tensor.dim() == 3):
            refuse(
                where,
                name,
                f"have shape {letters}",
                list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__,
                "Split the channels into heads first, for example x.view(N, H, D).",
            )
    if query.shape[0] != graph.num_queries:
        refuse(
            where,
            "query",
            f"have one row for each of the graph's {graph.num_queries} queries",
            f"query.shape = {list(query.shape)}",
            "Pass the rows that the graph was made for, or rebuild the graph.",
        )
    for name, tensor in (("key", key), ("value", value)):
        if tensor is None:
            continue
        if tensor.shape[0] != graph.num_keys:
            refuse(
                where,
                name,
                f"have one row for each of the graph's {graph.num_keys} keys",
                f"{name}.shape = {list(tensor.shape)}",
                "Pass the rows that the graph was made for; a bipartite graph needs size=(num_keys, num_queries).",
            )
        if tensor.shape[1] != query.shape[1]:
            refuse(
                where,
                name,
                f"have {query.shape[1]} heads like query",
                f"{name}.shape = {list(tensor.shape)}",
                f"Repeat the heads of {name}, or build query with {tensor.shape[1]} heads.",
            )
    if not (key.shape[2] == query.shape[2] and query.shape[2] > 0):
        refuse(
            where,
            "key",
            f"have query's width {query.shape[2]}, at least 1",
            f"key.shape = {list(key.shape)}",
            "Project both to one width.",
        )


def _check_relations(tensors: Tensors, graph: AttentionGraph, where: str) -> None:
    for name in ("relation_bias", "relation_key", "relation_value"):
        if not (getattr(tensors, name) is None or graph.relation is not None):
            refuse(
                where,
                name,
                "come with a graph that carries relations",
                "a graph without",
                "Make the graph with relation=, or label the pattern with .as_relation(r).",
            )


def _check_edges(tensors: Tensors, where: str) -> None:
    has_map = tensors.edge_key is not None or tensors.edge_value is not None
    if (tensors.edge_attr is not None) != has_map:
        refuse(
            where,
            "edge_attr",
            "come with edge_key or edge_value, and they with it",
            "only one side",
            "Pass edge_attr [E, F] together with edge_key [F, H, D] or edge_value [F, H, Dv].",
        )
    if tensors.edge_attr is not None and tensors.edge_attr.dim() != 2:
        refuse(
            where,
            "edge_attr",
            "have shape [E, F]",
            list(tensors.edge_attr.shape),
            "One feature an edge is edge_attr.unsqueeze(1).",
        )


def _check_shape(tensor: Tensor, name: str, letters: tuple[str, ...], sizes: dict[str, int], where: str) -> None:
    expected = tuple(sizes[letter] for letter in letters)
    if tuple(tensor.shape) != expected:
        refuse(
            where,
            name,
            f"have shape [{', '.join(letters)}] = {list(expected)}",
            list(tensor.shape),
            "Letters: E edges, H heads, D query width, Dv value width, R relations, F edge features.",
        )


def _check_kind(tensor: Tensor, name: str, query: Tensor, graph: AttentionGraph, where: str) -> None:
    if not (tensor.is_floating_point()):
        refuse(where, name, "have a floating dtype", tensor.dtype, "Convert it with .float().")
    if name in ("key", "value") and tensor.dtype != query.dtype:
        refuse(where, name, f"have query's dtype {query.dtype}", tensor.dtype, "Convert one of them.")
    if tensor.device != graph.device:
        refuse(
            where,
            name,
            f"be on the graph's device {graph.device}",
            tensor.device,
            f"Move it, or the graph with graph.to({str(tensor.device)!r}).",
        )


def as_seed(seed: int | Tensor | None, dropout: float, device: torch.device, where: str) -> Tensor | None:
    """The dropout seed as an int64 scalar, drawn from torch's generator where none is given; None without dropout."""
    if isinstance(seed, Tensor):
        if seed.dim() != 0 or seed.dtype != torch.int64:
            got = f"{list(seed.shape)}, {seed.dtype}"
            refuse(where, "seed", "be an integer or an int64 tensor of shape []", got, "Pass a plain int.")
    elif seed is not None:
        if not isinstance(seed, int) or isinstance(seed, bool):
            refuse(where, "seed", "be an integer or an int64 tensor of shape []", repr(seed), "Pass a plain int.")
        if not -(2**63) <= seed < 2**63:
            refuse(where, "seed", "fit 64 bits, sign included", seed, "Pass a smaller integer.")
    if dropout == 0:
        return None
    if seed is None:
        return torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=device)
    if isinstance(seed, int):  # filled in on the device, where a copy would wait for it and no CUDA graph could hold it
        return torch.full((), seed, dtype=torch.int64, device=device)
    return seed.to(device)
