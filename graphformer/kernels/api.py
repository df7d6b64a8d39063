"""The door: `attend` and its sisters check, choose a backend and call it."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import refuse, require_choice
from graphformer._errors import BackendError
from graphformer._transforms import is_transformed
from graphformer.graphs import AttentionGraph
from graphformer.kernels import checks, formula, native, reference, triton, watch
from graphformer.kernels.ops import call
from graphformer.kernels.problem import Additive, Case, Options, Rows, ScoreFunction, Tensors

BACKENDS = {"native": native, "triton": triton, "reference": reference}  # in the order in which "auto" tries them


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: AttentionGraph,
    *,
    score: str | Additive | ScoreFunction = "dot",
    normalizer: str = "softmax",
    bias: Tensor | None = None,
    relation_bias: Tensor | None = None,
    relation_key: Tensor | None = None,
    relation_value: Tensor | None = None,
    edge_attr: Tensor | None = None,
    edge_key: Tensor | None = None,
    edge_value: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Let each query attend to the keys that the graph gives it, and return the weighted sum of their values.

    Mathematics, for an edge e = (j -> i) with relation r and feature a::

        score[e,h] = scale * q[i,h] . (k[j,h] + relation_key[r,h] + a @ edge_key[:,h]) + relation_bias[r,h] + bias[e,h]
        P[e,h]     = dropout(normalizer(score))[e,h]
        out[i,h]   = sum over e of P[e,h] * (v[j,h] + relation_value[r,h] + a @ edge_value[:,h])

    with the sum and the normalizer over the edges into i. Scaled dot-product attention of Vaswani et al. (NeurIPS
    2017) on the edges of a graph; relation terms as in Shaw et al. (NAACL 2018), edge terms as in Shi et al. (IJCAI
    2021).

    Args:
        query: Shape `[N, H, D]`, floating.
        key: Shape `[M, H, D]`, dtype of `query`.
        value: Shape `[M, H, Dv]`, dtype of `query`.
        graph: Over N queries and M keys, on the device of the tensors.
        score: "dot" (default); :class:`Additive` for w . f(q + k + ...); or a function that takes the pairs' queries
            and keys, two tensors `[e, H, D]` in float32 (float64 for float64), and returns `[e, H]`.
        normalizer: "softmax" (default); "relu", relu(score) / degree (arXiv 2309.08586); "sigmoid",
            sigmoid(score - log degree) (arXiv 2409.04431).
        bias: Added to the score, by edge id; -inf removes a pair. Shape `[E, H]` or `[E]`, floating.
        relation_bias: Added to the score by the pair's relation. Shape `[R, H]`.
        relation_key: Added to the key by relation. Shape `[R, H, D]`.
        relation_value: Added to the value by relation. Shape `[R, H, Dv]`.
        edge_attr: Continuous edge features, by edge id. Shape `[E, F]`; `[graph.num_own_edges, F]` for a graph that
            knows which of its pairs are the node set's own edges (`graph.own_edge`): the others have a feature of zero.
        edge_key: Maps edge features into the key. Shape `[F, H, D]`.
        edge_value: Maps edge features into the value. Shape `[F, H, Dv]`.
        scale: Default 1 / sqrt(D). Dot score only.
        dropout: Probability, in [0, 1), that a weight is dropped; the others grow by 1 / (1 - dropout).
        seed: Of the dropout mask, an integer or an int64 tensor `[]`. Default: drawn from torch's generator.
        backend: "auto" (default) chooses; a named one runs or raises.

    Returns:
        Shape `[N, H, Dv]`, dtype of `query`. A query with no keys gets zeros.

    Raises:
        InputError: An argument breaks its rule above.
        BackendError: The named backend cannot run this case; the message gives its reasons.

    Notes:
        Differentiable in every floating tensor, twice outside of torch.compile; torch.func and forward mode work.
        Memory is O(E H) beside the inputs and outputs; third derivatives, and second ones and forward mode inside
        torch.func, hold `[E, H, D]`. Under autocast, query, key and value are cast to its dtype.
        A score of -inf removes its pair.

    Example:
        >>> graph = AttentionGraph.from_edge_index(torch.tensor([[0, 1, 2], [0, 0, 1]]), num_nodes=3)
        >>> x = torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1)
        >>> attend(torch.zeros(3, 1, 1), x, x, graph).flatten()  # the mean of 1 and 3; 5; no keys
        tensor([2., 5., 0.])
    """
    tensors, options = _problem(
        "attend",
        graph,
        {"query": query, "key": key, "value": value},
        score=score,
        normalizer=normalizer,
        bias=bias,
        relation_bias=relation_bias,
        relation_key=relation_key,
        relation_value=relation_value,
        edge_attr=edge_attr,
        edge_key=edge_key,
        edge_value=edge_value,
        scale=scale,
        dropout=dropout,
        seed=seed,
    )
    if watch.open_lists:
        watch.note(tensors, graph, options)
    name = choose(_case(tensors, graph, options), backend)
    if callable(options.score):
        with torch.autocast(query.device.type, enabled=False):
            return formula.attend(tensors, Rows(*graph.by_query, graph.relation), options)
    # Inside a transform a tensor does not know whether a gradient is taken outside of it.
    has_grad = any(t is not None and t.requires_grad for t in tensors) or is_transformed()
    rows = BACKENDS[name].rows(graph, tensors, options, by_key=torch.is_grad_enabled() and has_grad)
    return call(
        *tensors, *rows, options.seed, options.score, options.negative_slope, normalizer, options.scale, dropout, name
    )


def attention_weights(
    query: Tensor,
    key: Tensor,
    graph: AttentionGraph,
    *,
    score: str | Additive | ScoreFunction = "dot",
    normalizer: str = "softmax",
    bias: Tensor | None = None,
    relation_bias: Tensor | None = None,
    relation_key: Tensor | None = None,
    edge_attr: Tensor | None = None,
    edge_key: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The weight of each pair before dropout, in the order of `graph.edge_index`.

    Args:
        query: Shape `[N, H, D]`, floating.
        key: Shape `[M, H, D]`, dtype of `query`.
        graph: Over N queries and M keys.
        score: As in :func:`attend`.
        normalizer: As in :func:`attend`.
        bias: As in :func:`attend`.
        relation_bias: As in :func:`attend`.
        relation_key: As in :func:`attend`.
        edge_attr: As in :func:`attend`; comes with `edge_key`.
        edge_key: As in :func:`attend`.
        scale: As in :func:`attend`.

    Returns:
        Shape `[E, H]`, dtype of `query`, differentiable.

    Raises:
        InputError: An argument breaks its rule.

    Example:
        >>> graph = AttentionGraph.from_edge_index(torch.tensor([[0, 1], [0, 0]]), num_nodes=2)
        >>> attention_weights(torch.ones(2, 1, 1), torch.tensor([[[0.0]], [[1.0]]]), graph)
        tensor([[0.2689],
                [0.7311]])
    """
    tensors, options = _problem(
        "attention_weights",
        graph,
        {"query": query, "key": key},
        score=score,
        normalizer=normalizer,
        bias=bias,
        relation_bias=relation_bias,
        relation_key=relation_key,
        edge_attr=edge_attr,
        edge_key=edge_key,
        scale=scale,
    )
    with torch.autocast(query.device.type, enabled=False):
        return formula.weights(tensors, Rows(*graph.by_query, graph.relation), options)


def explain(query: Tensor, key: Tensor, value: Tensor, graph: AttentionGraph, **arguments: Any) -> str:
    """Which backends could run this call of :func:`attend`, which one "auto" takes, and by which loops.

    :func:`graphformer.estimate` tells what a call costs, before its graph is made.

    Args:
        query: As in :func:`attend`.
        key: As in :func:`attend`.
        value: As in :func:`attend`.
        graph: As in :func:`attend`.
        **arguments: The other arguments of :func:`attend`, without `backend`.

    Raises:
        InputError: As :func:`attend` would.

    Example:
        >>> graph = AttentionGraph.from_dense(torch.ones(2, 3).bool())
        >>> print(explain(torch.ones(2, 1, 4), torch.ones(3, 1, 4), torch.ones(3, 1, 4), graph))
        dot score, softmax, float32 on cpu: 2 queries, 3 keys, 6 edges, 1 head of width 4
        native: runs (chosen by "auto"); tiles serve 0 of 1 window of 32 queries: none is filled to 20%, ...
        reference: runs
    """
    tensors, options = _problem("explain", graph, {"query": query, "key": key, "value": value}, **arguments)
    case = _case(tensors, graph, options)
    lines, chosen = [describe(case)], choose(case, "auto")
    for name in BACKENDS:
        reasons = why_not(name, case)
        verdict = f"cannot: {'; '.join(reasons)}" if reasons else "runs"
        line = f"{name}: {verdict}" + (' (chosen by "auto")' if name == chosen else "")
        told = "" if reasons else BACKENDS[name].tell(graph, tensors, options)
        line += f"; {told}" if told else ""
        lines.append(line)
    return "\n".join(lines)


def why_not(backend: str, case: Case) -> list[str]:
    """The reasons why a backend cannot run a case; none means that it can."""
    require_choice(backend, BACKENDS, "attend", "backend")
    return BACKENDS[backend].why_not(case)


def choose(case: Case, backend: str, where: str = "attend") -> str:
    """The backend that runs a case: "auto" takes the first that can, a named one is refused where it cannot."""
    if backend == "auto":
        if native.LIBRARY is None and case.device.type == "cpu":
            _warn_that_native_is_missing()
        return next(name for name in BACKENDS if not why_not(name, case))
    require_choice(backend, ("auto", *BACKENDS), where, "backend")
    reasons = why_not(backend, case)
    if reasons:
        refuse(
            where,
            "backend",
            f"be able to run this case ({describe(case)})",
            f"{backend!r}: {'; '.join(reasons)}",
            'Pass backend="auto".',
            BackendError,
        )
    return backend


@cache
def _warn_that_native_is_missing() -> None:
    warnings.warn(
        "graphformer: its C++ library is not built, attention on the CPU takes the slower reference backend. "
        "Reinstall with a C++ compiler at hand, or name backend='reference' to say that this is meant.",
        stacklevel=4,
    )


def _case(tensors: Tensors, graph: AttentionGraph, options: Options) -> Case:
    query = tensors.query
    return Case(
        options.score if isinstance(options.score, str) else "custom",
        options.normalizer,
        query.dtype,
        query.device,
        graph.num_queries,
        graph.num_keys,
        graph.num_edges,
        query.shape[1],
        query.shape[2],
        tuple(name for name in Tensors._fields[4:] if getattr(tensors, name) is not None),
        options.dropout,
        0 if tensors.value is None else tensors.value.shape[2],
        graph.num_relations,
        0 if tensors.edge_attr is None else tensors.edge_attr.shape[1],
        graph.query_side.num_runs,
    )


def describe(case: Case) -> str:
    """A case in one line."""
    heads = f"{case.heads} head" + ("" if case.heads == 1 else "s")
    return (
        f"{case.score} score, {case.normalizer}, {str(case.dtype).removeprefix('torch.')} on {case.device}: "
        f"{case.num_queries} queries, {case.num_keys} keys, {case.num_edges} edges, {heads} of width {case.width}"
        + (f", with {', '.join(case.terms)}" if case.terms else "")
        + (f", dropout {case.dropout}" if case.dropout else "")
    )


def _problem(
    where: str,
    graph: AttentionGraph,
    nodes: dict[str, Tensor],
    *,
    score: str | Additive | ScoreFunction = "dot",
    normalizer: str = "softmax",
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    **terms: Tensor | None,
) -> tuple[Tensors, Options]:
    """The call's tensors and options, checked."""
    checks.check_graph(graph, where)
    checks.check_score(score, where)
    score = Additive() if score == "additive" else score
    weight = score.weight if isinstance(score, Additive) else None
    checks.check_types({**nodes, "weight": weight, **terms}, where)
    query, key, *value = _autocast(*nodes.values())
    terms["bias"], terms["edge_attr"] = _by_edge(terms.get("bias"), terms.get("edge_attr"), query, graph, where)
    tensors = Tensors(query, key, value[0] if value else None, weight, **terms)
    checks.check_tensors(tensors, graph, where)

    kind = score.activation if isinstance(score, Additive) else score
    if scale is None:
        scale = 1 / math.sqrt(query.shape[2])
    elif kind != "dot":
        refuse(
            where,
            "scale",
            "be left out unless the score is 'dot'",
            scale,
            "Scale the query, or the weight of the additive score.",
        )
    checks.check_scale(scale, where)
    slope = score.negative_slope if isinstance(score, Additive) else 0.0
    options = Options(kind, slope, normalizer, float(scale), dropout, None)
    checks.check_options(options, where)
    return tensors, options._replace(seed=checks.as_seed(seed, dropout, query.device, where))


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)


def _by_edge(
    bias: Tensor | None, edge_attr: Tensor | None, query: Tensor, graph: AttentionGraph, where: str
) -> tuple[Tensor | None, Tensor | None]:
    """A bias for every head, and edge features for every pair."""
    if bias is not None and bias.dim() == 1 and query.dim() == 3:
        bias = bias.unsqueeze(1).expand(-1, query.shape[1])
    own_edge = graph.own_edge
    if edge_attr is None or own_edge is None:
        return bias, edge_attr
    if not (edge_attr.dim() == 2 and edge_attr.shape[0] == graph.num_own_edges):
        refuse(
            where,
            "edge_attr",
            f"have shape [{graph.num_own_edges}, F], one row for each of the node set's own edges",
            list(edge_attr.shape),
            "Pass the edge_attr of the data that the pattern was laid over.",
        )
    # One more row, of zeros, for the pairs that are none of the own edges.
    padded = torch.cat((edge_attr, edge_attr.new_zeros(1, edge_attr.shape[1])))
    return bias, padded.index_select(0, torch.where(own_edge < 0, graph.num_own_edges, own_edge))
