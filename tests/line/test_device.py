"""The computation stays on its device: a real one where there is one, a stand-in for one everywhere."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.inference.result import TESTED
from sigad.line import Restriction, above, agreement, restrict, roots
from sigad.localization import localization_test
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.diffusion.unet import UNet
from tests.line.elsewhere import ELSEWHERE, Away, elsewhere, fetched
from tests.line.test_exact import Net, points_of


def network() -> nn.Module:
    return Net([0, 4, 3, 6], 4, True, True, 7)


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(widths=(24, 32, 48), embedding=8).eval()


def problem(channels: int) -> tuple:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(channels, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))


NETWORKS = {
    "everything": (network, 2),
    "U-Net": (lambda: Reconstruction(unet(), draw_noises(np.random.default_rng(1), (1, 8, 8))), 1),
    "max pools": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
                                        nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)), 2),
    "clamps": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.Hardtanh(), nn.PReLU()), 2),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_operation_on_two_devices_and_no_transfer_inside_the_propagation(name, dtype):
    make, channels = NETWORKS[name]
    net, (x, direction) = make().eval(), problem(channels)
    host = restrict(net, x, direction, (-0.2, 0.2), dtype=torch.float64)
    with elsewhere() as transfers:
        line = Restriction(net, x, direction, dtype=dtype, device=ELSEWHERE)
        transfers.clear()
        f, *others = line.chunks((-0.2, 0.2))
        # The ends of each chunk go there. No tensor comes back, and single numbers do from checks only.
        assert [t for t in transfers if t[0] != "number"] == [("to meta", (1, 2))] * (1 + len(others))
        assert isinstance(f.values, Away) and isinstance(f.breakpoints, Away)
    t, tolerance = points_of(host, 50), 1e-10 if dtype == torch.float64 else 1e-5
    there = type(f)(fetched(f.breakpoints), fetched(f.values))
    scale = float(host.values.abs().max())
    torch.testing.assert_close(there(t).double(), host(t), rtol=tolerance, atol=tolerance * scale)
    if dtype == torch.float64:
        assert abs(f.pieces - host.pieces) <= 2  # kinks that rounding puts on one side or the other, and cuts


def test_reading_a_function_that_is_elsewhere():
    net, (x, direction) = network(), problem(2)
    host = restrict(net, x, direction, (-0.2, 0.2), dtype=torch.float64)
    level = float(host.values.median())
    observed = host(0.05) > level
    with elsewhere():
        there = restrict(net, x, direction, (-0.2, 0.2), dtype=torch.float64, device=ELSEWHERE)
        for read in (above, roots):
            for got, expected in zip(read(there, level), read(host, level), strict=True):
                np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(agreement(there, level, observed), agreement(host, level, observed), atol=1e-12)
        assert fetched(there(0.1)).shape == host(0.1).shape
        assert fetched(there.amax(0).values).shape[0] > 2


def test_the_localization_test_runs_where_the_network_is():
    generator = np.random.default_rng(3)
    net = Reconstruction(unet(), draw_noises(generator, (1, 8, 8))).double()
    x, x_ref = generator.standard_normal((2, 1, 8, 8))
    given = {"threshold": 1.0, "tolerance": 1e-3, "covariance": 1.0}
    host = localization_test(net, x, x_ref, **given)
    with elsewhere():
        there = localization_test(net.to(ELSEWHERE), x, x_ref, **given)
    assert host.status == there.status == TESTED and abs(there.p_value - host.p_value) < 1e-9
    np.testing.assert_allclose(there.region, host.region, atol=1e-9)


def test_the_stand_in_refuses_what_a_device_refuses():
    with elsewhere() as transfers:
        there = torch.ones(3, device=ELSEWHERE)
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="two devices"):
            F.linear(there, torch.ones(2, 3))
        assert not transfers
        assert (there + torch.tensor(1.0)).sum().item() == 6.0 and there.cpu().tolist() == [1.0] * 3
        assert transfers == [("number", ()), ("to cpu", (3,))]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_cuda(name, dtype):
    make, channels = NETWORKS[name]
    net, (x, direction) = make().eval(), problem(channels)
    host = restrict(net, x, direction, (-0.2, 0.2), dtype=torch.float64)
    device = restrict(net, x, direction, (-0.2, 0.2), dtype=dtype, device="cuda")
    assert device.values.is_cuda and device.breakpoints.is_cuda
    t = points_of(host, 50)
    tol = 1e-10 if dtype == torch.float64 else 1e-5
    scale = float(host.values.abs().max())
    torch.testing.assert_close(device(t).cpu().double(), host(t), rtol=tol, atol=tol * scale)
