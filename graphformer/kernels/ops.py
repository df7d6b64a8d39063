"""The torch operators behind `attend`: one forward, one backward, for every backend.

Each is opaque to torch.compile, with a fake whose shapes depend on the inputs' shapes only. The derivative of the
backward operator is written out in torch, so that second derivatives exist for every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from graphformer._checks import refuse
from graphformer._errors import UnsupportedError
from graphformer.kernels import native, reference, tangent
from graphformer.kernels.problem import Options, Rows, Tensors

_NUM_TENSORS = len(Tensors._fields)
_NUM_SAVED = _NUM_TENSORS + len(Rows._fields) + 1  # and the seed: everything before the plain options
_BACKENDS = {"native": native, "reference": reference}


def call(*inputs: Any) -> Tensor:
    """The result of `attend_op`, without the dispatcher where nothing but this process's autograd looks on.

    The dispatcher of an operator with this many arguments costs as much as a small graph's attention does.
    """
    _refuse_forward_mode()
    if is_watched(inputs[:_NUM_TENSORS]):
        return attend_op(*inputs)[0]
    return _Attend.apply(*inputs)[0]


def _refuse_forward_mode() -> None:
    """Refuse torch.func.jvp and jacfwd, which would take an operator without a rule of theirs for a constant."""
    if torch.compiler.is_compiling():
        return
    functorch = torch._C._functorch
    stack = functorch.get_interpreter_stack() or ()
    if any(interpreter.key() == functorch.TransformType.Jvp for interpreter in stack):
        rule, remedy = "be differentiated backward", "Take torch.autograd.grad of it, twice for second derivatives."
        refuse("attend", "the result", rule, "forward-mode differentiation (torch.func.jvp)", remedy, UnsupportedError)


def is_watched(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a compiler, a tracer, a dispatch mode, torch.func or a tensor subclass must see the operator."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(tensor is not None and type(tensor) not in (Tensor, Parameter) for tensor in tensors)
    )


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _save_forward(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad_out, _)


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    tensors, rows, options, backend = _read(inputs)
    with _without_autocast(tensors.query):
        return _BACKENDS[backend].forward(tensors, rows, options)


def _gradients(grad_out: Tensor, out: Tensor, statistic: Tensor, *inputs: Any) -> list[Tensor]:
    tensors, rows, options, backend = _read(inputs[:-1])
    needs = Tensors(*inputs[-1])
    with _without_autocast(tensors.query):
        grads = _BACKENDS[backend].backward(grad_out, out, statistic, tensors, rows, options, needs)
    return [grad for grad in grads if grad is not None]


def _read(inputs: Sequence[Any]) -> tuple[Tensors, Rows, Options, str]:
    seed, score, negative_slope, normalizer, scale, dropout, backend = inputs[_NUM_SAVED - 1 :]
    options = Options(score, negative_slope, normalizer, scale, dropout, seed)
    return Tensors(*inputs[:_NUM_TENSORS]), Rows(*inputs[_NUM_TENSORS : _NUM_SAVED - 1]), options, backend


def _without_autocast(tensor: Tensor) -> Any:
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@torch.library.custom_op("graphformer::attend", mutates_args=())
def attend_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    relation_bias: Tensor | None,
    relation_key: Tensor | None,
    relation_value: Tensor | None,
    edge_attr: Tensor | None,
    edge_key: Tensor | None,
    edge_value: Tensor | None,
    query_ptr: Tensor,
    key_index: Tensor | None,
    edge_id: Tensor | None,
    relation: Tensor | None,
    key_ptr: Tensor | None,
    query_index: Tensor | None,
    key_edge_id: Tensor | None,
    query_tile_ptr: Tensor | None,
    query_tiles: Tensor | None,
    key_tile_ptr: Tensor | None,
    key_tiles: Tensor | None,
    query_run_ptr: Tensor | None,
    query_run_start: Tensor | None,
    query_run_stop: Tensor | None,
    key_run_ptr: Tensor | None,
    key_run_start: Tensor | None,
    key_run_stop: Tensor | None,
    seed: Tensor | None,
    score: str,
    negative_slope: float,
    normalizer: str,
    scale: float,
    dropout: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """out [N, H, Dv] and the row statistic [N, H]."""
    return _forward(
        *(
            query,
            key,
            value,
            weight,
            bias,
            relation_bias,
            relation_key,
            relation_value,
            edge_attr,
            edge_key,
            edge_value,
        ),
        *(query_ptr, key_index, edge_id, relation, key_ptr, query_index, key_edge_id),
        *(query_tile_ptr, query_tiles, key_tile_ptr, key_tiles),
        *(query_run_ptr, query_run_start, query_run_stop, key_run_ptr, key_run_start, key_run_stop),
        *(seed, score, negative_slope, normalizer, scale, dropout, backend),
    )


@attend_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    tensors = Tensors(*arguments[:_NUM_TENSORS])
    num_rows, num_heads = tensors.query.shape[:2]
    assert tensors.value is not None
    return (
        tensors.query.new_empty(num_rows, num_heads, tensors.value.shape[2]),
        tensors.query.new_empty(num_rows, num_heads, dtype=tensors.compute_dtype),
    )


@torch.library.custom_op("graphformer::attend_backward", mutates_args=())
def attend_backward_op(
    grad_out: Tensor,
    out: Tensor,
    statistic: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    relation_bias: Tensor | None,
    relation_key: Tensor | None,
    relation_value: Tensor | None,
    edge_attr: Tensor | None,
    edge_key: Tensor | None,
    edge_value: Tensor | None,
    query_ptr: Tensor,
    key_index: Tensor | None,
    edge_id: Tensor | None,
    relation: Tensor | None,
    key_ptr: Tensor | None,
    query_index: Tensor | None,
    key_edge_id: Tensor | None,
    query_tile_ptr: Tensor | None,
    query_tiles: Tensor | None,
    key_tile_ptr: Tensor | None,
    key_tiles: Tensor | None,
    query_run_ptr: Tensor | None,
    query_run_start: Tensor | None,
    query_run_stop: Tensor | None,
    key_run_ptr: Tensor | None,
    key_run_start: Tensor | None,
    key_run_stop: Tensor | None,
    seed: Tensor | None,
    score: str,
    negative_slope: float,
    normalizer: str,
    scale: float,
    dropout: float,
    backend: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that `needs` asks for, in the order of `Tensors`."""
    return _gradients(
        *(grad_out, out, statistic),
        *(
            query,
            key,
            value,
            weight,
            bias,
            relation_bias,
            relation_key,
            relation_value,
            edge_attr,
            edge_key,
            edge_value,
        ),
        *(query_ptr, key_index, edge_id, relation, key_ptr, query_index, key_edge_id),
        *(query_tile_ptr, query_tiles, key_tile_ptr, key_tiles),
        *(query_run_ptr, query_run_start, query_run_stop, key_run_ptr, key_run_start, key_run_stop),
        *(seed, score, negative_slope, normalizer, scale, dropout, backend, needs),
    )


@attend_backward_op.register_fake
def _(*arguments: Any) -> list[Tensor]:
    tensors, needs = arguments[3 : 3 + _NUM_TENSORS], arguments[-1]
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor, need in zip(tensors, needs, strict=True)
        if need
    ]


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    saved = inputs[:_NUM_SAVED]
    ctx.options = inputs[_NUM_SAVED:]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, *saved)


def _backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    out, statistic, *saved = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:_NUM_TENSORS])
    # A second derivative needs the operator's own gradient.
    watched = torch.is_grad_enabled() or is_watched((grad_out, *saved[:_NUM_TENSORS]))
    gradients = attend_backward_op if watched else _gradients
    grads = iter(gradients(grad_out, out, statistic, *saved, *ctx.options, needs) if any(needs) else ())
    by_field = [next(grads) if need else None for need in needs]
    return (*by_field, *[None] * (_NUM_SAVED - _NUM_TENSORS + len(ctx.options)))


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.options = inputs[3 + _NUM_SAVED : -1]
    ctx.needs = inputs[-1]
    ctx.set_materialize_grads(False)  # of what no second derivative asks about there is nothing to compute
    ctx.save_for_backward(inputs[0], *inputs[2 : 3 + _NUM_SAVED])  # all but the result


def _second_backward(ctx: Any, grad_grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The derivative of <first derivatives, grad_grads> in grad_out and in every tensor."""
    grad_out, statistic, *saved = ctx.saved_tensors
    score, slope, normalizer, scale, dropout, _ = ctx.options
    *rows, seed = saved[_NUM_TENSORS:]
    needs = ctx.needs_input_grad[3 : 3 + _NUM_TENSORS]
    given = iter(grad_grads)
    along = Tensors(*(next(given) if need else None for need in ctx.needs))  # type: ignore[arg-type]
    tensors = Tensors(*saved[:_NUM_TENSORS])
    options = Options(score, slope, normalizer, scale, dropout, seed)
    with _without_autocast(grad_out):
        listed = Rows(*rows).listed(tensors.key.shape[0])
        moved, slopes = tangent.second(grad_out, statistic, tensors, along, listed, options, Tensors(*needs))
    return (moved.to(grad_out.dtype), None, None, *slopes, *[None] * (_NUM_SAVED - _NUM_TENSORS + len(ctx.options) + 1))


attend_op.register_autograd(_backward, setup_context=_save_forward)
attend_backward_op.register_autograd(_second_backward, setup_context=_save_backward)
