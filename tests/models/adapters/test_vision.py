"""Networks of torchvision, timm and diffusers on a lattice. Skipped where the library is not installed."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad import Lattice, knn_test, localization_test
from sigad.errors import InvalidInputError, UnsupportedOperationError
from sigad.knn.network import NetworkFeatures
from sigad.models.adapters.vision import NoisePredictor, without_head
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises


def check(network, size, features):
    """A kNN test with its features, which only the lattice engine can do."""
    network = without_head(network)
    rng = np.random.default_rng(0)
    x_train, x = rng.standard_normal((8, 3, size, size)), rng.standard_normal((3, size, size)) + 0.5
    with torch.no_grad():
        assert network(torch.from_numpy(x_train).float()).flatten(1).shape == (8, features)
    given = {"k": 2, "threshold": -9.0, "covariance": 1.0, "features": NetworkFeatures(network)}
    with pytest.raises(UnsupportedOperationError, match='engine="lattice"'):
        knn_test(x, x_train, **given)
    # Half a unit: enough to see that it works, in twenty evaluations or so.
    result = knn_test(x, x_train, **given, engine=Lattice(spacing=0.5), against="neighbourhood")
    assert result.status == "tested" and 0 < result.p_value <= 1 and result.n_evaluations < 200


def torchvision():
    from sigad.models.vision import import_torchvision

    return import_torchvision()


def test_a_vision_transformer_of_torchvision():
    pytest.importorskip("torchvision")
    vit = torchvision().models.VisionTransformer(16, 8, 2, 2, 24, 48)
    check(vit, 16, 24)


def test_a_convnext_of_torchvision():
    pytest.importorskip("torchvision")
    from_torchvision = torchvision().models.convnext
    setting = from_torchvision.CNBlockConfig
    check(from_torchvision.ConvNeXt([setting(8, 16, 1), setting(16, None, 1)]), 16, 16)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224"])
def test_transformers_of_timm(name):
    pytest.importorskip("torchvision")
    torchvision()
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'sigad[timm]'")
    check(
        timm.create_model(name, pretrained=False, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2), 32, 24
    )


def test_features_of_a_resnet_are_those_before_its_head():
    pytest.importorskip("torchvision")
    network = torchvision().models.resnet18(weights=None).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.fc(without_head(network)(x)), network(x))
    assert isinstance(network.fc, nn.Linear)  # the given one stays as it is


def test_a_network_without_a_head():
    with pytest.raises(InvalidInputError, match="no head"):
        without_head(nn.Conv2d(3, 3, 1))


def test_a_diffusion_model_of_diffusers():
    """UNet2DModel as it is: SiLU, group norm, attention."""
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'sigad[diffusion]'")
    from sigad.models.diffusion import diffusers_parts  # noqa: F401  (torchvision may need a hand)

    from diffusers import UNet2DModel  # isort: skip

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    rng = np.random.default_rng(0)
    reconstruct = Reconstruction(NoisePredictor(unet), draw_noises(rng, (1, 8, 8))).eval()
    x, x_ref = rng.standard_normal((2, 1, 8, 8))
    given = {"threshold": 1.0, "covariance": 1.0, "resolution": 4}
    with pytest.raises(UnsupportedOperationError, match='engine="lattice"'):
        localization_test(reconstruct, x, x_ref, **given)
    result = localization_test(reconstruct, x, x_ref, engine=Lattice(spacing=0.2), **given)
    assert result.status == "tested" and 0 < result.p_value <= 1
