"""A convolution rebuilt as multi-head attention: one head an offset of the kernel, exactly."""

import pytest
import torch
from torch.nn import Conv1d, Conv2d, Conv3d

from graphformer import attend
from graphformer.patterns import Grid, Window

CASES = [
    # module, size, arguments
    (Conv2d, (7, 5), {"kernel_size": 3, "padding": 1}),
    (Conv2d, (8, 9), {"kernel_size": (3, 2), "padding": (0, 1), "stride": (2, 1)}),
    (Conv2d, (9, 10), {"kernel_size": (2, 3), "padding": 2, "stride": (3, 2), "dilation": (1, 2)}),
    (Conv2d, (7, 6), {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}),
    (Conv1d, (11,), {"kernel_size": 4, "padding": 2, "dilation": 2}),
    (Conv3d, (4, 5, 3), {"kernel_size": (2, 3, 1), "padding": (1, 1, 0), "stride": (1, 2, 1)}),
]


@pytest.mark.parametrize(
    ("module", "size", "arguments"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_convolution_is_attention_over_a_window(module, size, arguments):
    torch.manual_seed(len(size))
    conv = module(4, 6, **arguments, dtype=torch.float64)
    image = torch.randn(1, 4, *size, dtype=torch.float64)
    expected = conv(image)
    grids = Grid(*size), Grid(*expected.shape[2:])
    window = Window(
        left=0,
        right=tuple(width - 1 for width in conv.kernel_size),
        dilation=conv.dilation,
        stride=conv.stride,
        offset=tuple(-width for width in conv.padding),
        border="wrap" if conv.padding_mode == "circular" else "clip",
    )
    graph = window.on(grids)
    # Head t attends to the one key at the t-th place of the kernel: its scores are 0 there and -inf elsewhere.
    key, query = graph.edge_index
    places = [torch.cartesian_prod(*map(torch.arange, grid.shape)).view(-1, len(size)) for grid in grids]
    middle = places[1][query] * torch.tensor(conv.stride) - torch.tensor(conv.padding)
    turn = (places[0][key] - middle) % torch.tensor(size) // torch.tensor(conv.dilation)
    head = torch.zeros_like(key)
    for axis, width in enumerate(conv.kernel_size):
        head = head * width + turn[:, axis]
    num_heads = conv.weight[0, 0].numel()
    bias = torch.full((graph.num_edges, num_heads), -torch.inf, dtype=torch.float64)
    bias[torch.arange(graph.num_edges), head] = 0.0
    # A head's values are the pixels times its kernel matrix, so that the heads add up to the convolution.
    values = torch.einsum("cn,oct->nto", image.flatten(2)[0], conv.weight.flatten(2))
    nothing = values.new_zeros(max(grid.num_nodes for grid in grids), num_heads, 1)
    out = attend(nothing[: grids[1].num_nodes], nothing[: grids[0].num_nodes], values, graph, bias=bias)
    rebuilt = (out.sum(1) + conv.bias).t().view_as(expected)
    torch.testing.assert_close(rebuilt, expected, rtol=1e-12, atol=1e-12)
