"""DGL's sampled products and edge softmax, where DGL can be imported."""

from __future__ import annotations

import math

from torch import Tensor

from benchmarks.case import Attention, Case, Provider, Run, leaves_of


def _why_not(case: Case, measure: str) -> str:
    try:
        import dgl  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # not installed, or built for another torch
        return f"DGL cannot be imported ({str(error).splitlines()[0]})"
    return ""


def _prepare(case: Case, inputs: Attention) -> Run:
    import dgl

    leaves = leaves_of(inputs.query, inputs.key, inputs.value)
    query, key, value = leaves
    graph = dgl.graph(tuple(inputs.graph.edge_index), num_nodes=inputs.graph.num_queries)
    graph.create_formats_()
    scale = 1 / math.sqrt(query.shape[-1])

    def forward() -> Tensor:
        score = dgl.ops.u_dot_v(graph, key, query) * scale
        return dgl.ops.u_mul_e_sum(graph, value, dgl.ops.edge_softmax(graph, score))

    return Run(forward, dict(zip(("query", "key", "value"), leaves, strict=True)), inputs.grad_out)


PROVIDER = Provider("dgl", "DGL: u_dot_v, edge_softmax, u_mul_e_sum", _why_not, _prepare)
