"""Windows, chunks, the memory budget, and the precision of single-precision searches."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.errors import InvalidInputError, NumericalError, UnsupportedOperationError
from sigad.line import LineFunction, Restriction, above, concatenate, restrict
from sigad.line.fast.memory import metered


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 1, 1),
    ).double()  # fmt: skip


def problem():
    torch.manual_seed(1)
    return network(), torch.randn(1, 8, 8).double(), torch.randn(1, 8, 8).double()


def test_chunks_are_adjacent_and_equal_the_whole():
    net, x, direction = problem()
    whole = restrict(net, x, direction, (-2.0, 2.0), dtype=torch.float64)
    line = Restriction(net, x, direction, dtype=torch.float64, memory_budget=500_000)
    parts = list(line.chunks((-2.0, 2.0)))
    assert len(parts) > 5 and parts[0].window[0] == -2.0 and parts[-1].window[1] == 2.0
    assert all(a.window[1] == b.window[0] for a, b in itertools.pairwise(parts))
    t = torch.linspace(-2, 2, 501, dtype=torch.float64)
    torch.testing.assert_close(concatenate(parts)(t), whole(t), rtol=1e-10, atol=1e-12)
    with pytest.raises(InvalidInputError, match="consecutive"):
        concatenate([parts[0], parts[2]])


def test_several_windows_at_once_equal_each_alone():
    """What lies between the windows costs nothing and leaves no trace, whatever bends there (a max pool does, too)."""
    net, x, direction = problem()
    line = Restriction(net, x, direction, dtype=torch.float64)
    windows = [(-2.0, -1.5), (-0.1, 0.2), (0.3, 0.3 + 1e-9), (1.0, 2.0)]
    together = list(line.chunks(*windows))
    assert [f.window for f in together] == windows
    for f, window in zip(together, windows, strict=True):
        alone = restrict(net, x, direction, window, dtype=torch.float64)
        torch.testing.assert_close(f.breakpoints, alone.breakpoints, rtol=0, atol=1e-12)
        torch.testing.assert_close(f.values, alone.values, rtol=1e-10, atol=1e-12)
    # Cut by a small budget, the parts still cover the windows from left to right.
    parts = list(Restriction(net, x, direction, dtype=torch.float64, memory_budget=500_000).chunks(*windows))
    assert len(parts) > len(windows)
    joined = [list(group) for _, group in itertools.groupby(parts, lambda f: sum(f.window[0] >= w[1] for w in windows))]
    assert [(group[0].window[0], group[-1].window[1]) for group in joined] == windows
    for group, whole in zip(joined, together, strict=True):
        t = torch.linspace(*whole.window, 101, dtype=torch.float64)
        torch.testing.assert_close(concatenate(group)(t), whole(t), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("windows", [((0.0, 1.0), (1.0, 2.0)), ((1.0, 2.0), (0.0, 0.5)), ((0.0, 0.0),)])
def test_windows_must_be_sorted_disjoint_and_not_empty(windows):
    with pytest.raises(InvalidInputError, match="disjoint"):
        list(Restriction(nn.ReLU(), torch.ones(3), torch.ones(3)).chunks(*windows))


@pytest.mark.parametrize("budget", [300_000, 1_000_000, 4_000_000])
def test_memory_stays_within_the_budget(budget):
    net, x, direction = problem()
    line, peaks = Restriction(net, x, direction, memory_budget=budget), []
    run = line._run

    def watched(windows, limit):
        with metered(budget) as outer:  # the inner meter is the one in force; this one only shows that blocks nest
            result = run(windows, limit)
        assert outer.peak == 0 and limit < budget
        return result

    line._run = watched
    for f in line.chunks((-2.0, 2.0)):
        peaks.append(f.values.untyped_storage().nbytes())
    assert max(peaks) < budget


def test_random_numbers_drawn_by_the_module_are_refused():
    with pytest.raises(UnsupportedOperationError, match="random"):
        restrict(lambda x: x + torch.randn(1, 3), torch.ones(3), torch.ones(3), (-1.0, 1.0))


def test_no_room_for_a_single_piece():
    net, x, direction = problem()
    line, runs = Restriction(net, x, direction, memory_budget=10_000), []
    run = line._run
    line._run = lambda windows, limit: runs.append(windows) or run(windows, limit)
    with pytest.raises(NumericalError, match="memory_budget"):
        list(line.chunks((-1.0, 1.0)))
    assert len(runs) <= 5, runs  # told by the number of points: no window is short enough


class Ties(nn.Module):
    """Many kinks that coincide but for rounding: borders repeated and enlarged, then pooled."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 16, 3, padding=1, padding_mode="replicate")
        self.double().eval()

    def forward(self, x):
        x = F.pad(x, (2, 2, 2, 2), mode="replicate").expand(1, 1, 12, 12)
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return F.max_pool2d(F.relu(self.conv(x)), 2)


@pytest.mark.parametrize("budget", [2_000_000, 4_000_000])
def test_a_small_budget_ends_where_kinks_coincide(monkeypatch, budget):
    """Windows are not cut without end: there is an error that names the way out, or an answer."""
    torch.manual_seed(1)
    x, direction = torch.zeros(1, 8, 8).double(), torch.ones(1, 8, 8).double()
    x += 1e-16 * torch.randn(1, 8, 8).double()
    line, runs = Restriction(Ties(), x, direction, dtype=torch.float64, memory_budget=budget), []
    run = line._run
    line._run = lambda windows, limit: runs.append(windows) or run(windows, limit)
    with contextlib.suppress(NumericalError):
        for _ in line.chunks((-1.0, 1.0)):
            assert len(runs) < 300
    assert len(runs) < 300


def test_outputs_of_any_structure_and_constants():
    def two(x):
        return {"a": F.relu(x).flatten(1), "b": (x.mean((1, 2, 3)), torch.ones(1, 3))}

    x, direction = torch.randn(1, 3, 3).double(), torch.randn(1, 3, 3).double()
    result = restrict(two, x, direction, (-1.0, 1.0), dtype=torch.float64)
    assert result["a"].shape == (9,) and result["b"][0].shape == () and result["b"][1].shape == (3,)
    assert isinstance(result["b"][1], LineFunction) and (result["b"][1](0.3) == 1).all()


def test_single_precision_then_float64_polish_finds_the_same_end_points():
    """Level sets found in float32, each end point looked for again in float64 in a neighbourhood of 1e-4."""
    net, x, direction = problem()
    exact_output, exact = above(restrict(net, x, direction, (-1.0, 1.0), dtype=torch.float64), 0.2)
    line = Restriction(net, x, direction, dtype=torch.float32)
    output, rough = above(line(-1.0, 1.0), 0.2)
    np.testing.assert_array_equal(output, exact_output)
    assert 0 < np.abs(rough - exact).max() < 1e-4
    fine = Restriction(net, x, direction, dtype=torch.float64)
    for i, ends, truth in list(zip(output, rough, exact, strict=True))[:10]:
        for side in (0, 1):
            if abs(ends[side]) < 1.0:
                which, found = above(fine(ends[side] - 1e-4, ends[side] + 1e-4), 0.2)
                assert found[which == i].ravel()[side] == pytest.approx(truth[side], abs=1e-9)


def test_a_module_of_constants_in_double_precision_says_so_in_single():
    """torch multiplies matrices of one precision only; an error that is the module's own stays as it is."""
    x, constant = torch.ones(3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)

    def mixed(x):
        return F.relu(x) + torch.tensordot(torch.ones(1, 3, dtype=x.dtype), constant, 2)

    window = (-1.0, 1.0)
    assert restrict(mixed, x, x, window, dtype=torch.float64)(0.5).tolist() == [4.5, 4.5, 4.5]
    with pytest.raises(NumericalError, match="works in double precision only"):
        restrict(mixed, x, x, window)
    with pytest.raises(RuntimeError, match="size"):
        restrict(lambda x: x + x.new_ones(4), x, x, window)


def test_wrong_arguments():
    x = torch.zeros(3)
    for arguments in ((x, torch.zeros(2)), (x, x * torch.nan), ((x, x), (None, None)), ((x, x), (x,))):
        with pytest.raises(InvalidInputError):
            Restriction(nn.ReLU(), *arguments)
    with pytest.raises(InvalidInputError, match="dtype"):
        Restriction(nn.ReLU(), x, x, dtype=torch.float16)
    for window in ((1.0, 1.0), (1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(InvalidInputError, match="window"):
            restrict(nn.ReLU(), x, x + 1, window)


def test_single_precision_is_not_rounded_further():
    """Neither by what torch was told (or does by default, on GPUs), nor by mixed precision around the call."""
    kinds = (torch.backends.cudnn.conv, torch.backends.cuda.matmul, torch.backends.mkldnn.conv)
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, x):
            seen.append([kind.fp32_precision for kind in kinds])
            return self.network(x)

    _, x, direction = problem()
    before = [kind.fp32_precision for kind in kinds]
    expected = restrict(Spy(), x, direction, (-2.0, 2.0))
    try:
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
        with torch.autocast("cpu", torch.bfloat16):
            f = restrict(Spy(), x, direction, (-2.0, 2.0))
        with pytest.raises(InvalidInputError):
            restrict(nn.Sequential(Spy(), Failing()), x, direction, (-2.0, 2.0))
        assert torch.backends.mkldnn.conv.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before[-1]
    assert torch.equal(f.values, expected.values)
    assert len(seen) > 3 and all(s == ["ieee"] * 3 for s in seen) and [kind.fp32_precision for kind in kinds] == before


class Failing(nn.Module):
    def forward(self, x):
        raise InvalidInputError("on purpose")


def test_mixed_precision_within_the_module_is_refused():
    net, x, direction = problem()

    def mixed(x):
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)

    with pytest.raises(UnsupportedOperationError, match=r"'conv2d'.*bfloat16.*autocast"):
        restrict(mixed, x.float(), direction.float(), (-1.0, 1.0))
