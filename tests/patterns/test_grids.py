"""Windows, blocks and lines on grids, against index sets made in other ways."""

from itertools import product

import pytest
import torch
from pattern_cases import edge_matrix, predicate
from torch.nn.functional import pad, unfold
from torch_geometric.data import Batch, Data

from graphformer import GraphformerError
from graphformer.graphs import AttentionGraph
from graphformer.patterns import Axial, Blocks, Full, Grid, RunTerm, ShiftedWindows, Strided, Window
from graphformer.patterns.node_sets import read_nodes


def both_views(pattern, nodes):
    """The matrix [N, M] of the pairs, after a look that both views give it."""
    matrix = edge_matrix(pattern, nodes) > 0
    assert torch.equal(predicate(pattern, nodes), matrix)
    return matrix


def by_loop(rule, queries, keys):
    """A rule on the coordinates of a query and a key, asked about each pair."""
    pairs = [
        [rule(query, key) for key in product(*map(range, keys.shape))] for query in product(*map(range, queries.shape))
    ]
    return torch.tensor(pairs).view(queries.num_nodes, keys.num_nodes).bool()


# ---------------------------------------------------------------- grids as node sets


def test_a_grid_is_a_value():
    grid = Grid(3, 4)
    assert grid == Grid(3, 4)
    assert grid != Grid(4, 3)
    assert hash(grid) == hash(Grid(3, 4))
    assert (repr(grid), grid.num_nodes, grid.shape) == ("Grid(3, 4)", 12, (3, 4))
    with pytest.raises(AttributeError):
        grid.shape = (4, 3)


@pytest.mark.parametrize("shape", [(), (3, -1), (2.0,), (True, 3), ([2, 3],)])
def test_grids_are_refused(shape):
    with pytest.raises(GraphformerError, match=r"^Grid: shape must be integers, 0 or more; got .*For example Grid\("):
        Grid(*shape)


def with_pos(grid, **held):
    places = torch.tensor(list(product(*map(range, grid.shape)))).view(-1, len(grid.shape))
    return Data(num_nodes=grid.num_nodes, pos=places, **held)


def test_coordinates_are_row_major():
    sets = read_nodes([Grid(2, 3), Grid(0, 4), Grid(3, 1)], "test")
    assert sets.key_shape.tolist() == [[2, 3], [0, 4], [3, 1]]
    expected = [*product(range(2), range(3)), *product(range(3), range(1))]
    assert sets.query_place.tolist() == [list(place) for place in expected]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_integer_positions_are_grids(dtype):
    grids = [Grid(2, 3, 4), Grid(3, 1, 2), Grid(1, 1, 1)]
    samples = [with_pos(grid) for grid in grids]
    for sample in samples:
        sample.pos = sample.pos.to(dtype)
    pattern = Window((1, 0, 2)) | Axial(0)
    assert pattern.on(Batch.from_data_list(samples)) == pattern.on(grids)
    assert pattern.on(samples[0]) == pattern.on(grids[0])


def test_other_positions_leave_a_sequence():
    edge_index = torch.tensor([[0], [1]])
    for pos in (torch.rand(6, 2), torch.arange(6), torch.arange(6)[:, None].flip(0), torch.ones(6, 2).bool()):
        assert Window(1).on(Data(num_nodes=6, pos=pos, edge_index=edge_index)) == Window(1).on(6)


def spoiled(change):
    data = with_pos(Grid(3, 4))
    change(data.pos)
    return data


@pytest.mark.parametrize(
    "data",
    [
        spoiled(lambda pos: pos.copy_(pos.flip(0))),
        spoiled(lambda pos: pos.add_(1)),
        spoiled(lambda pos: pos[5].sub_(7)),
        spoiled(lambda pos: pos[5].add_(2**62)),
        Data(num_nodes=12, pos=torch.cartesian_prod(torch.arange(4), torch.arange(3)).flip(1)),
    ],
)
def test_positions_that_are_no_grid_are_refused_where_a_grid_is_asked_for(data):
    message = r"^Window\(radius=1\): nodes.pos must hold the row-major coordinates of a grid, from 0, in each set; got "
    with pytest.raises(GraphformerError, match=message + r"integer positions \[12, 2\] that do not. Order the nodes"):
        Window(1).on(data)
    assert Full().count(data) == 144
    assert Strided(3).count(data) == 48


@pytest.mark.parametrize(
    ("pattern", "nodes", "message"),
    [
        (Window(1), [Grid(2, 3), Grid(4)], r"nodes must have one number of axes in all sets; got \[1, 2\]. Keep grids"),
        (Window(1), [Grid(2, 3), 4], r"nodes must have one number of axes in all sets; got \[1, 2\]. Keep grids"),
        (Window(1), (Grid(2, 3), 4), r"have one number of axes on both sides; got \[2, 1\]. Lay keys and queries on"),
        (Window((1, 2)), 5, r"radius must have 1 entries, one an axis; got \(1, 2\). An integer counts for all"),
        (Window(left=2, right=(1, 1)), 5, r"right must have 1 entries, one an axis; got \(1, 1\)"),
        (Window(1, dilation=(1, 2, 3)), Grid(2, 2), r"dilation must have 2 entries, one an axis; got \(1, 2, 3\)"),
        (Window(1, stride=2), Grid(4, 4), r"be a tuple \(key nodes, query nodes\) with a stride; got one node set"),
        (Blocks((2, 2)), 8, r"size must have 1 entries, one an axis; got \(2, 2\)"),
        (Blocks(3, shift=(1, 2, 0)), Grid(2, 2), r"shift must have 2 entries, one an axis; got \(1, 2, 0\)"),
        (Axial(2), Grid(2, 2), "axis must be one of the nodes' 2 axes; got 2. Axes count from 0"),
        (Axial(1), 5, "axis must be one of the nodes' 1 axes; got 1"),
    ],
    ids=str,
)
def test_patterns_that_do_not_fit_the_nodes(pattern, nodes, message):
    with pytest.raises(GraphformerError, match=message):
        pattern.on(nodes)
    with pytest.raises(GraphformerError, match=message):
        pattern.allows(torch.tensor([0]), torch.tensor([0]), nodes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window((1, -1)), r"radius must be an integer, 0 or more and below 2.31; got \(1, -1\). Pass a plain"),
        (lambda: Window(()), r"radius must be an integer, 0 or more and below 2.31; got \(\)"),
        (lambda: Window([1, 2]), r"radius must be an integer.*got \[1, 2\]. .* a tuple with one an axis"),
        (lambda: Window(1, stride=0), "stride must be an integer, 1 or more and below 2.31; got 0"),
        (lambda: Window(1, offset=0.5), "offset must be an integer, -2147483647 or more and below 2.31; got 0.5"),
        (
            lambda: Window(1, border="wrp"),
            "Window: border must be one of clip, wrap, shift; got 'wrp'. Did you mean wra",
        ),
        (lambda: Blocks((2, 0)), r"Blocks: size must be an integer, 1 or more and below 2.31; got \(2, 0\)"),
        (lambda: Blocks(4, shift=4), "shift must have an entry below that of size = 4 for each axis; got 4. Shift by"),
        (lambda: Blocks((4, 2), shift=3), r"below that of size = \(4, 2\) for each axis; got 3"),
        (lambda: Blocks((4, 2), shift=(1, 1, 1)), r"for each axis; got \(1, 1, 1\)"),
        (lambda: Blocks(4, shift=-1), "shift must be an integer, 0 or more"),
        (lambda: ShiftedWindows(0), "Blocks: size must be an integer, 1 or more"),
        (lambda: ShiftedWindows("x"), "Blocks: size must be an integer, 1 or more"),
        (lambda: Axial(-1), "Axial: axis must be an integer, 0 or more"),
        (lambda: Strided(0), "Strided: stride must be an integer, 1 or more"),
    ],
)
def test_arguments_are_refused(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()


# ---------------------------------------------------------------- windows


def unfolded(size, kernel, dilation, padding, stride):
    """Which pixels torch's unfold shows to each output: a matrix [outputs, pixels]."""
    ids = 1.0 + torch.arange(size[0] * size[1], dtype=torch.float64).view(1, 1, *size)  # 0 is the padding
    seen = unfold(ids, kernel, dilation, padding, stride)[0].long()
    matrix = torch.zeros(seen.shape[1], size[0] * size[1] + 1, dtype=torch.bool)
    return matrix.scatter_(1, seen.t(), True)[:, 1:]


CONVOLUTIONS = [
    # size, kernel, dilation, padding, stride
    ((7, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((7, 5), (3, 2), (1, 1), (0, 0), (1, 1)),
    ((9, 8), (3, 3), (2, 1), (2, 1), (1, 1)),
    ((9, 8), (2, 3), (1, 2), (0, 3), (2, 3)),
    ((6, 11), (4, 1), (1, 3), (2, 0), (3, 2)),
    ((3, 4), (5, 5), (2, 1), (4, 3), (1, 1)),
]


def output_grid(size, kernel, dilation, padding, stride):
    sizes = zip(size, kernel, dilation, padding, stride, strict=True)
    return Grid(*((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in sizes))


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_a_window_is_what_unfold_shows(case):
    size, kernel, dilation, padding, stride = case
    ends = tuple(k - 1 for k in kernel)
    pattern = Window(left=0, right=ends, dilation=dilation, stride=stride, offset=tuple(-p for p in padding))
    nodes = (Grid(*size), output_grid(*case))
    assert torch.equal(both_views(pattern, nodes), unfolded(*case))
    same = tuple(d * e // 2 for d, e in zip(dilation, ends, strict=True)) == padding
    if same and stride == (1, 1) and all(k % 2 for k in kernel):
        radius = tuple(k // 2 for k in kernel)
        assert Window(radius, dilation=dilation).on(Grid(*size)).edge_index.equal(pattern.on(nodes).edge_index)


@pytest.mark.parametrize("dilation", [1, (1, 3, 2)])
def test_a_window_in_three_dimensions(dilation):
    size, radius = (4, 7, 5), (1, 2, 1)
    steps = dilation if isinstance(dilation, tuple) else (dilation,) * 3

    def near(query, key):
        ahead = [k - q for q, k in zip(query, key, strict=True)]
        return all(abs(a) <= r * d and a % d == 0 for a, r, d in zip(ahead, radius, steps, strict=True))

    seen = both_views(Window(radius, dilation=dilation), Grid(*size))
    assert torch.equal(seen, by_loop(near, Grid(*size), Grid(*size)))


@pytest.mark.parametrize("dilation", [(1, 1), (1, 2), (3, 1)])
def test_a_circular_window_is_unfold_of_circular_padding(dilation):
    size, kernel = (7, 8), (3, 3)
    ids = torch.arange(56, dtype=torch.float64).view(1, 1, *size)
    around = pad(ids, (dilation[1], dilation[1], dilation[0], dilation[0]), mode="circular")
    seen = unfold(around, kernel, dilation)[0].long()
    expected = torch.zeros(56, 56, dtype=torch.bool).scatter_(1, seen.t(), True)
    assert torch.equal(both_views(Window(1, dilation=dilation, border="wrap"), Grid(*size)), expected)


def line_by_loop(border, size, middle, left, right, step):
    """The keys that one query sees on one axis, by trying window after window."""
    if border == "wrap":
        return {(middle + step * t) % size for t in range(-left, right + 1)} if size else set()
    phase = [place for place in range(size) if (place - middle) % step == 0]
    seen = [middle + step * t for t in range(-left, right + 1)]
    if border == "shift":
        while seen and phase and seen[0] < phase[0]:
            seen = [place + step for place in seen]
        while seen and phase and seen[-1] > phase[-1] and seen[0] > phase[0]:
            seen = [place - step for place in seen]
    return set(seen) & set(phase)


@pytest.mark.parametrize("border", ["clip", "wrap", "shift"])
@pytest.mark.parametrize(
    "window",
    [
        {"left": 2, "right": 2},
        {"left": 1, "right": 3, "dilation": 2},
        {"left": 0, "right": 2, "dilation": 3, "offset": -2},
        {"left": 4, "right": 1, "stride": 2, "offset": 1},
        {"left": 2, "right": 0, "stride": 3, "dilation": 2, "offset": -1},
        {"left": 9, "right": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("nodes", [(11, 4), (6, 6), (3, 5), (0, 3)], ids=str)
def test_borders_query_by_query(border, window, nodes):
    full = {"dilation": 1, "stride": 1, "offset": 0, **window}
    expected = torch.zeros(nodes[1], nodes[0], dtype=torch.bool)
    for query in range(nodes[1]):
        middle = full["stride"] * query + full["offset"]
        seen = line_by_loop(border, nodes[0], middle, full["left"], full["right"], full["dilation"])
        expected[query, list(seen)] = True
    assert torch.equal(both_views(Window(**window, border=border), nodes), expected)


@pytest.mark.parametrize(("radius", "dilation"), [((1, 2), 1), ((1, 2), (2, 1)), ((2, 1), (1, 3))])
def test_a_shifted_window_gives_every_query_all_its_keys(radius, dilation):
    pattern, size = Window(radius, dilation=dilation, border="shift"), (7, 10)
    steps = dilation if isinstance(dilation, tuple) else (dilation,) * 2
    width = [2 * r + 1 for r in radius]
    graph = pattern.on(Grid(*size))
    assert graph.degree.unique().tolist() == [width[0] * width[1]]
    lines = [
        [line_by_loop("shift", size[a], middle, radius[a], radius[a], steps[a]) for middle in range(size[a])]
        for a in (0, 1)
    ]
    expected = by_loop(lambda query, key: all(key[a] in lines[a][query[a]] for a in (0, 1)), Grid(*size), Grid(*size))
    assert torch.equal(both_views(pattern, Grid(*size)), expected)


def test_every_border_is_one_for_windows_that_stay_inside():
    inside = torch.zeros(6, 9, dtype=torch.bool)
    inside[1:-1, 2:-2] = True
    rows = [
        both_views(Window((1, 2), border=border), Grid(6, 9))[inside.flatten()] for border in ("clip", "wrap", "shift")
    ]
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])


def test_a_window_on_rows_of_one_is_a_window_on_the_sequence():
    for border in ("clip", "wrap", "shift"):
        pattern = Window(left=2, right=1, border=border)
        assert pattern.on(Grid(1, 9)) == pattern.on(9)
        assert pattern.on(Grid(9, 1)) == pattern.on(9)
        assert pattern.on(Grid(9)) == pattern.on(9)


def test_a_window_without_bounds_is_full():
    for border in ("clip", "wrap", "shift"):
        assert Window(2**31 - 1, border=border).on([Grid(3, 4), Grid(2, 5)]) == Full().on([12, 10])


def test_a_large_grid_lowers_to_a_run_a_row_of_the_window():
    (term,) = Window((2, 40)).lower(Grid(300, 400))
    assert isinstance(term, RunTerm)
    assert term.runs.start.numel() == 400 * (300 * 5 - 6)
    assert term.num_pairs == (300 * 5 - 6) * (400 * 81 - 40 * 41)


# ---------------------------------------------------------------- blocks and lines


@pytest.mark.parametrize(
    ("size", "shift", "grid"),
    [
        (3, 0, Grid(7, 5)),
        ((2, 4), 0, Grid(5, 9)),
        ((2, 4), (1, 3), Grid(5, 9)),
        (3, 2, Grid(8)),
        ((1, 2, 3), (0, 1, 1), Grid(2, 3, 5)),
    ],
)
def test_blocks(size, shift, grid):
    sizes, shifts = (value if isinstance(value, tuple) else (value,) * len(grid.shape) for value in (size, shift))

    def block(place):
        return [(p - b) // s for p, s, b in zip(place, sizes, shifts, strict=True)]

    expected = by_loop(lambda query, key: block(query) == block(key), grid, grid)
    assert torch.equal(both_views(Blocks(size, shift), grid), expected)


@pytest.mark.parametrize(("size", "grid"), [(4, (8, 12)), ((2, 6), (4, 12)), (3, (9, 6))])
def test_shifted_windows_are_swins_masked_roll(size, grid):
    width = size if isinstance(size, tuple) else (size,) * 2
    half = [w // 2 for w in width]
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    # Roll the image, cut it into windows, and mask pairs that were not near one another before.
    rolled = [torch.roll(place, (-half[0], -half[1]), (0, 1)) for place in (rows, columns)]
    window = rows // width[0] * grid[1] + columns // width[1]
    came_round = (rows >= grid[0] - half[0]).long() * 2 + (columns >= grid[1] - half[1]).long()
    node = (rolled[0] * grid[1] + rolled[1]).flatten()
    label = torch.empty_like(node)
    label[node] = (window * 4 + came_round).flatten()
    assert torch.equal(both_views(ShiftedWindows(size), Grid(*grid)), label[:, None] == label)


@pytest.mark.parametrize("axis", [0, 1, 2, None])
def test_axial(axis):
    grid = Grid(3, 2, 4)

    def on_line(query, key):
        differs = [a for a in range(3) if query[a] != key[a]]
        return len(differs) == 0 or (len(differs) == 1 and axis in (None, differs[0]))

    assert torch.equal(both_views(Axial(axis), grid), by_loop(on_line, grid, grid))


def test_axial_between_grids_of_other_sizes():
    nodes = (Grid(3, 5), Grid(4, 2))
    seen = both_views(Axial(1), nodes)
    assert torch.equal(seen, by_loop(lambda query, key: query[0] == key[0], nodes[1], nodes[0]))


def test_strided():
    for stride in (1, 3, 20):
        expected = (torch.arange(11)[:, None] - torch.arange(11)) % stride == 0
        assert torch.equal(both_views(Strided(stride), 11), expected)
    assert Strided(5).on(Grid(4, 5)) == Axial(0).on(Grid(4, 5))


def test_a_ragged_batch_of_grids_is_the_union():
    grids = [Grid(3, 4), Grid(0, 2), Grid(5, 2)]
    for pattern in (Window((1, 0), border="wrap"), Blocks((2, 3), shift=1), Axial(), Strided(4)):
        assert pattern.on(grids) == AttentionGraph.union([pattern.on(grid) for grid in grids])
