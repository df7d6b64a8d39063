"""torch's multi-head attention over attention graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphformer._checks import refuse, require_choice
from graphformer.graphs import AttentionGraph
from graphformer.kernels import attend, attention_weights
from graphformer.kernels.api import BACKENDS
from graphformer.kernels.dropout import keep_scale
from graphformer.nn.dense_batch import lay
from graphformer.nn.sequence_batch import SequenceBatch
from graphformer.patterns import Causal, Pattern

_WHERE = "MultiheadAttention"


def attend_with(
    attn: torch.nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: AttentionGraph,
    *,
    dropout: float | None = None,
    **terms: Any,
) -> Tensor:
    """Attention along a graph with the weights of torch's module: project, attend, project.

    Args:
        attn: Whose weights, heads and dropout are taken; packed and separate projections, with biases or without.
        query: Nodes that ask, shape `[N, C]`, C = `attn.embed_dim`, floating.
        key: Nodes that are asked, shape `[M, attn.kdim]`.
        value: What they tell, shape `[M, attn.vdim]`.
        graph: Over N queries and M keys.
        dropout: Probability that a weight is dropped, in [0, 1). Default: `attn.dropout` in training, else 0.
        **terms: What :func:`graphformer.attend` adds to scores, keys and values (`bias`, `relation_bias`,
            `edge_attr`, ...), and `seed` and `backend`.

    Returns:
        Shape `[N, C]`. A query without keys gets the bias of the last map.

    Raises:
        InputError: A side is no matrix of its width, the module adds keys that are no nodes (`add_bias_kv`,
            `add_zero_attn`), or as :func:`graphformer.attend`.

    Example:
        >>> attn = torch.nn.MultiheadAttention(8, 2)
        >>> x, graph = torch.randn(3, 8), AttentionGraph.from_dense(torch.ones(3, 3).bool())
        >>> torch.allclose(attend_with(attn, x, x, x, graph), attn(x, x, x)[0], atol=1e-6)
        True
    """
    query, key, value = project(attn, query, key, value)
    if dropout is None:
        dropout = attn.dropout if attn.training else 0.0
    out = attend(query, key, value, graph, dropout=dropout, **terms)
    return functional.linear(out.flatten(1), attn.out_proj.weight, attn.out_proj.bias)


def project(attn: torch.nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Queries, keys and values of all heads: `[N, C]`, `[M, kdim]`, `[M, vdim]` -> `[N, H, D]`, `[M, H, D]` twice."""
    _refuse_added_keys(attn)
    # Three products, also where the weight is packed: thirds of one product would be strided, and copied by the kernel.
    weights = (
        (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)
        if attn.in_proj_weight is None
        else attn.in_proj_weight.chunk(3)
    )
    biases = (None, None, None) if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
    heads = []
    for name, side, weight, bias in zip(("query", "key", "value"), (query, key, value), weights, biases, strict=True):
        if side.dim() != 2 or side.shape[1] != weight.shape[1]:
            remedy = "Flatten the batch into node rows; the widths are attn's embed_dim, kdim and vdim."
            refuse(_WHERE, name, f"have shape [N, {weight.shape[1]}]", list(side.shape), remedy)
        heads.append(functional.linear(side, weight, bias).unflatten(1, (attn.num_heads, attn.head_dim)))
    return heads


class MultiheadAttention(torch.nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with a pattern that says which query sees which key.

    Parameters, `state_dict`, initialisation and arguments are torch's. With a pattern the result equals torch's with
    the pattern's dense mask as `attn_mask`, in time and memory that go with the pattern's pairs; without one it is
    torch's module. Three things are told apart:

    * A query whose keys are all removed gets the bias of the last map; torch gives NaN on some of its paths.
    * Padded keys are no part of the graph, where torch weighs them with zero. In self-attention (`query is key`)
      padding behind the sequences is no part of them: the pattern is laid over each sequence's own length, nothing is
      computed for the padding, and its rows get that same bias. Beside any other mask the pattern is laid over all
      places, as it is with masks under torch.compile.
    * `torch.nn.TransformerEncoderLayer` computes with kernels of its own in evaluation, past this module; a module with
      a pattern carries a hook, which keeps it from that.

    Args:
        embed_dim: Width C of the queries and of the result.
        num_heads: Number of heads H; divides `embed_dim`.
        dropout: Probability that a weight is dropped in training, in [0, 1).
        bias: Whether the maps have biases.
        add_bias_kv: As in torch; not with a pattern, which says nothing of keys that are no nodes.
        add_zero_attn: As in torch; not with a pattern.
        kdim: Width of the keys. Default: `embed_dim`.
        vdim: Width of the values. Default: `embed_dim`.
        batch_first: Whether batches are `[N, L, C]` rather than `[L, N, C]`.
        device: Of the parameters.
        dtype: Of the parameters.
        pattern: Laid over the L places of each sequence (over S keys and L queries where these differ).
        backend: Which kernel runs, see :func:`graphformer.attend`.

    Raises:
        InputError: What is no pattern, or keys that are no nodes beside one.

    Example:
        >>> from graphformer.patterns import Window
        >>> attn = MultiheadAttention(16, 4, batch_first=True, pattern=Window(2))
        >>> x = torch.randn(3, 10, 16)
        >>> out, weights = attn(x, x, x)
        >>> out.shape, weights.shape
        (torch.Size([3, 10, 16]), torch.Size([3, 10, 10]))
        >>> weights[0].count_nonzero(dim=1)
        tensor([3, 4, 5, 5, 5, 5, 5, 5, 4, 3])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        pattern: Pattern | None = None,
        backend: str = "auto",
    ) -> None:
        require_choice(backend, ("auto", *BACKENDS), _WHERE, "backend")
        if not (pattern is None or isinstance(pattern, Pattern)):
            remedy = "For example Window(8); a graph that is ready is given to forward."
            refuse(_WHERE, "pattern", "be a pattern or None", type(pattern).__name__, remedy)
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        self._pattern = pattern
        self.backend = backend
        if pattern is not None:
            _refuse_added_keys(self)
            self.register_forward_pre_hook(_be_called)

    @property
    def pattern(self) -> Pattern | None:
        """Which query sees which key; chosen when the module is made."""
        return self._pattern

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        graph: AttentionGraph | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Let each query attend to the keys that the pattern, or the graph, gives it.

        Args:
            query: Shape `[L, C]`, `[L, N, C]`, or `[N, L, C]` with `batch_first`; or nested, N sequences of their own
                lengths with `batch_first`.
            key: Shape `[S, kdim]`, `[S, N, kdim]` or `[N, S, kdim]`; or nested.
            value: As `key`, of width `vdim`.
            key_padding_mask: Shape `[N, S]`, or `[S]` without a batch: boolean, True removes a key; or floating, added
                to its scores, -inf removes it.
            need_weights: Whether to return the weights; holds `[N, L, S]`, and `[E, H]` beside it.
            attn_mask: Shape `[L, S]` or `[N * H, L, S]`: boolean, True removes a pair; or floating, added to its score.
            average_attn_weights: Whether the weights are the mean of the heads.
            is_causal: A hint that `attn_mask` is the causal mask, which is then taken as `pattern & Causal()`.
            graph: In place of the pattern, over the N * S keys and N * L queries of all sequences, one after the other.

        Returns:
            The result, shaped like the query; and the weights after dropout, `[N, L, S]`, or `[N, H, L, S]` where they
            are not averaged, without N where there is no batch; or None.

        Raises:
            InputError: Shapes that do not fit, masks or weights of nested tensors, or a causal hint without a mask.
        """
        if self._pattern is None and graph is None:
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        if query.is_nested or key.is_nested or value.is_nested:
            if need_weights or key_padding_mask is not None or attn_mask is not None:
                remedy = "Pass need_weights=False; the lengths take the place of a padding mask."
                refuse(_WHERE, "nested query", "come without masks and weights", "one of these", remedy)
            return self._attend_nested(query, key, value, graph), None
        if is_causal and attn_mask is None:
            remedy = "Pass the mask that it speaks of, or make the module with pattern & Causal()."
            refuse(_WHERE, "is_causal", "come with attn_mask", None, remedy)
        batch = SequenceBatch(self, query, key, value)
        if graph is None:
            pattern = self._pattern
            assert pattern is not None
            if is_causal:
                pattern, attn_mask = pattern & Causal(), None
            graph, key_padding_mask = batch.lay(pattern, key_padding_mask)
        elif need_weights or attn_mask is not None or key_padding_mask is not None:
            batch.check_inside(graph)
        bias = batch.bias(graph, attn_mask, key_padding_mask)
        return self._attend_batch(batch, graph, bias, need_weights, average_attn_weights)

    def extra_repr(self) -> str:
        """What the module's repr tells beside torch's."""
        return "" if self._pattern is None else f"pattern={self._pattern!r}"

    def _attend_batch(
        self, batch: SequenceBatch, graph: AttentionGraph, bias: Tensor | None, need_weights: bool, average: bool
    ) -> tuple[Tensor, Tensor | None]:
        query, key, value = project(self, *batch.rows)
        dropout = self.dropout if self.training else 0.0
        seed = torch.randint(2**63 - 1, (), device=query.device) if need_weights and dropout else None
        out = attend(query, key, value, graph, bias=bias, dropout=dropout, seed=seed, backend=self.backend)
        out = functional.linear(batch.shape(out.flatten(1)), self.out_proj.weight, self.out_proj.bias)
        if not need_weights:
            return out, None
        weights = attention_weights(query, key, graph, bias=bias)
        if seed is not None:  # torch returns them after dropout
            ids = torch.arange(graph.num_edges, device=graph.device)
            weights = weights * keep_scale(ids, self.num_heads, dropout, seed, weights.dtype)
        return out, batch.dense(weights, graph, average)

    def _attend_nested(self, query: Tensor, key: Tensor, value: Tensor, graph: AttentionGraph | None) -> Tensor:
        parts = [side.unbind() for side in (query, key, value)]
        lengths = [tuple(part.shape[0] for part in side) for side in parts]
        if graph is None:
            assert self._pattern is not None
            graph = lay(self._pattern, lengths[1], lengths[0], query.device)
        rows = [torch.cat(side) for side in parts]
        out = attend_with(self, rows[0], rows[1], rows[2], graph, backend=self.backend)
        if query.layout == torch.jagged:  # by its own offsets, so that a residual finds the same lengths
            return torch.nested.nested_tensor_from_jagged(out, query.offsets())  # type: ignore[attr-defined]
        return torch.nested.as_nested_tensor(list(out.split(lengths[0])))


def _be_called(attn: torch.nn.Module, inputs: Any) -> None:
    """A hook that does nothing: where a module has one, torch's encoder layer does not compute past it."""


def _refuse_added_keys(attn: torch.nn.MultiheadAttention) -> None:
    if attn.bias_k is not None or attn.add_zero_attn:
        found = f"add_bias_kv={attn.bias_k is not None}, add_zero_attn={attn.add_zero_attn}"
        remedy = "Add such keys as nodes of their own, for example with VirtualNode."
        refuse(_WHERE, "attn", "attend to nodes alone along a graph", found, remedy)
