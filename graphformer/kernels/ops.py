"""The torch operators behind `attend`: one forward, one backward, for every backend.

Each is opaque to torch.compile, with a fake whose shapes depend on the inputs' shapes only. The derivative of the
backward operator is written out in torch, so that second derivatives exist for every backend. Under torch.func the
first derivative is the backend's, too; what lies beyond it is derived from the formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from graphformer._checks import refuse
from graphformer._errors import UnsupportedError
from graphformer._transforms import is_transformed
from graphformer.kernels import formula, native, reference, tangent, triton
from graphformer.kernels.problem import Options, Rows, Tensors

_NUM_TENSORS = len(Tensors._fields)
_NUM_SAVED = _NUM_TENSORS + len(Rows._fields) + 1  # and the seed: everything before the plain options
_PROBLEM = ", ".join(
    (
        *(f"Tensor {name}" for name in Tensors._fields[:3]),
        *(f"Tensor? {name}" for name in Tensors._fields[3:]),
        "Tensor ptr",
        *(f"Tensor? {name}" for name in Rows._fields[1:]),
        "Tensor? seed, str score, float negative_slope, str normalizer, float scale, float dropout, str backend",
    )
)
# One result a field, and no list: torch knows batches of gradients (is_grads_batched) only of operators without lists.
_BY_FIELD = ", ".join(["Tensor"] * _NUM_TENSORS)
# torch keeps compiled programs on disk, over new versions of this package too, and finds them by the operators' names:
# where what an operator takes or gives changes, so must this.
_CONVENTION = 3
_BACKENDS = {"native": native, "triton": triton, "reference": reference}


def call(*inputs: Any) -> Tensor:
    """The result of `attend_op`, without the dispatcher where nothing but this process's autograd looks on.

    The dispatcher of an operator with this many arguments costs as much as a small graph's attention does.
    """
    if torch.compiler.is_compiling():
        return attend_op(*inputs)[0]
    if forward_ad._current_level >= 0 or is_transformed():
        return _transformed(inputs)
    if _is_watched(inputs[:_NUM_TENSORS]):
        return attend_op(*inputs)[0]
    return _Attend.apply(*inputs)[0]


def _is_watched(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a compiler, a tracer, a dispatch mode or a tensor subclass must see the operator."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or any(tensor is not None and type(tensor) not in (Tensor, Parameter) for tensor in tensors)
    )


def _transformed(inputs: tuple[Any, ...]) -> Tensor:
    """The result for torch.func, and for forward mode, which the operators have no rule for."""
    if forward_ad._current_level < 0 and _count_gradients() < 2:
        return _Transformed.apply(*inputs)[0]
    tensors, rows, options, _ = _read(inputs)
    with _without_autocast(tensors.query):
        return formula.attend(tensors, rows.listed(tensors.key.shape[0]), options)


def _count_gradients() -> int:
    """How many of the transforms at work take gradients."""
    functorch = torch._C._functorch
    stack = functorch.get_interpreter_stack() or ()
    return sum(interpreter.key() == functorch.TransformType.Grad for interpreter in stack)


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


def _gradients(grad_out: Tensor, out: Tensor, statistic: Tensor, *inputs: Any) -> Tensors:
    tensors, rows, options, backend = _read(inputs[:-1])
    needs = Tensors(*inputs[-1])
    with _without_autocast(tensors.query):
        return _BACKENDS[backend].backward(grad_out, out, statistic, tensors, rows, options, needs)


def _all_gradients(*inputs: Any) -> tuple[Tensor, ...]:
    """As an operator must return them: empty where `needs` does not ask."""
    return _filled(inputs[0], _gradients(*inputs))


def _filled(like: Tensor, parts: Iterable[Tensor | None]) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(0) if part is None else part for part in parts)


def _read(inputs: Sequence[Any]) -> tuple[Tensors, Rows, Options, str]:
    seed, score, negative_slope, normalizer, scale, dropout, backend = inputs[_NUM_SAVED - 1 :]
    options = Options(score, negative_slope, normalizer, scale, dropout, seed)
    return Tensors(*inputs[:_NUM_TENSORS]), Rows(*inputs[_NUM_TENSORS : _NUM_SAVED - 1]), options, backend


def _without_autocast(tensor: Tensor) -> Any:
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


attend_op = torch.library.custom_op(  # out [N, H, Dv] and the row statistic [N, H]
    f"graphformer::attend_v{_CONVENTION}", _forward, mutates_args=(), schema=f"({_PROBLEM}) -> (Tensor, Tensor)"
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


attend_backward_op = torch.library.custom_op(
    f"graphformer::attend_backward_v{_CONVENTION}",
    _all_gradients,
    mutates_args=(),
    schema=f"(Tensor grad_out, Tensor out, Tensor statistic, {_PROBLEM}, bool[] needs) -> ({_BY_FIELD})",
)


@attend_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given = zip(arguments[3 : 3 + _NUM_TENSORS], arguments[-1], strict=True)
    return _filled(
        arguments[0],
        (torch.empty_like(tensor, memory_format=torch.contiguous_format) if need else None for tensor, need in given),
    )


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    saved = inputs[:_NUM_SAVED]
    ctx.options = inputs[_NUM_SAVED:]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, *saved)


def _backward(ctx: Any, grad_out: Tensor, _: Tensor, gradients: Any = None) -> tuple[Tensor | None, ...]:
    out, statistic, *saved = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:_NUM_TENSORS])
    if gradients is None:
        # A second derivative needs the operator's own gradient, and so does a batch of gradients.
        is_batch = is_legacy_batchedtensor(grad_out)
        watched = torch.is_grad_enabled() or is_batch or _is_watched((grad_out, *saved[:_NUM_TENSORS]))
        gradients = _Gradients.apply if is_transformed() else attend_backward_op if watched else _gradients
    grads = gradients(grad_out, out, statistic, *saved, *ctx.options, needs) if any(needs) else needs
    by_field = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
    return (*by_field, *[None] * (_NUM_SAVED - _NUM_TENSORS + len(ctx.options)))


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.options = inputs[3 + _NUM_SAVED : -1]
    ctx.set_materialize_grads(False)  # of what no second derivative asks about there is nothing to compute
    ctx.save_for_backward(inputs[0], *inputs[2 : 3 + _NUM_SAVED])  # all but the result


def _second_backward(ctx: Any, *grad_grads: Tensor | None) -> tuple[Any, ...]:
    """The derivative of <first derivatives, grad_grads> in grad_out and in every tensor."""
    needs = list(ctx.needs_input_grad[3 : 3 + _NUM_TENSORS])
    inputs = (*grad_grads, *ctx.saved_tensors, *ctx.options, needs)
    is_batch = is_transformed() or any(g is not None and is_legacy_batchedtensor(g) for g in grad_grads)
    first, *rest = attend_second_op(*inputs) if is_batch else _second(*inputs)
    by_field = [grad if need else None for grad, need in zip(rest, needs, strict=True)]
    return (first, None, None, *by_field, *[None] * (_NUM_SAVED - _NUM_TENSORS + len(ctx.options) + 1))


def _second(*inputs: Any) -> tuple[Tensor | None, ...]:
    along, (grad_out, statistic), needs = Tensors(*inputs[:_NUM_TENSORS]), inputs[_NUM_TENSORS:][:2], inputs[-1]
    tensors, rows, options, _ = _read(inputs[_NUM_TENSORS + 2 : -1])
    with _without_autocast(grad_out):
        listed = rows.listed(tensors.key.shape[0])
        moved, slopes = tangent.second(grad_out, statistic, tensors, along, listed, options, Tensors(*needs))
    return (moved.to(grad_out.dtype), *slopes)


def _all_second(*inputs: Any) -> tuple[Tensor, ...]:
    grad_out, _, *tensors = inputs[_NUM_TENSORS : 2 * _NUM_TENSORS + 2]
    first, *rest = _second(*inputs)
    unmoved = zip(rest, tensors, inputs[-1], strict=True)
    rest = [torch.zeros_like(tensor) if need and grad is None else grad for grad, tensor, need in unmoved]
    return _filled(grad_out, (first, *rest))


_ALONG = ", ".join(f"Tensor? along_{name}" for name in Tensors._fields)
attend_second_op = torch.library.custom_op(  # for batches, which torch and `_one_by_one` take apart
    f"graphformer::attend_second_v{_CONVENTION}",
    _all_second,
    mutates_args=(),
    schema=f"({_ALONG}, Tensor grad_out, Tensor statistic, {_PROBLEM}, bool[] needs) -> (Tensor, {_BY_FIELD})",
)


class _Transformed(torch.autograd.Function):
    """`_Attend` as torch.func takes it: the samples of a batch go one by one."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return _forward(*inputs)

    setup_context = staticmethod(_save_forward)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad_out, _, _Gradients.apply)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, int]:
        return _one_by_one(_Transformed.apply, info.batch_size, in_dims, inputs)


class _Gradients(torch.autograd.Function):
    """`attend_backward_op` as torch.func takes it."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return _all_gradients(*inputs)

    setup_context = staticmethod(_save_backward)

    @staticmethod
    def backward(ctx: Any, *grad_grads: Tensor | None) -> tuple[Any, ...]:
        if _count_gradients():
            _refuse_late()
        return _second_backward(ctx, *grad_grads)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        _refuse_late()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, int]:
        return _one_by_one(_Gradients.apply, info.batch_size, in_dims, inputs)


def _one_by_one(
    function: Any, num_samples: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], int]:
    """The results for each sample, stacked."""
    samples = [
        [
            value.select(dim, sample) if isinstance(dim, int) else value
            for value, dim in zip(inputs, in_dims, strict=True)
        ]
        for sample in range(num_samples)
    ]
    found = [function(*sample) for sample in samples]
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), 0


def _refuse_late() -> NoReturn:
    rule, remedy = "be taken where all transforms are", "Nest them: grad(lambda x: grad(f)(x).sum())."
    refuse("attend", "a gradient", rule, "a transform of what torch.func.vjp returned", remedy, UnsupportedError)


def _refuse_third(ctx: Any, *_: Tensor) -> NoReturn:
    rule, remedy = "be of first or second order", "Take torch.func.jacrev thrice, or the derivatives one by one."
    refuse("attend", "a batch of derivatives", rule, "third derivatives", remedy, UnsupportedError)


attend_op.register_autograd(_backward, setup_context=_save_forward)
attend_backward_op.register_autograd(_second_backward, setup_context=_save_backward)
attend_second_op.register_autograd(_refuse_third)


@attend_second_op.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, int]:
    return _one_by_one(attend_second_op, info.batch_size, in_dims, inputs)
