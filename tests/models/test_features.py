"""Feature maps of images: truncation, weights by name, saving; and real weights that recognise something."""

import pytest
import torch

from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.line import restrict
from sigad.models.architectures import small_cnn
from sigad.models.features import Truncated, load_features, restore_features, save_features
from sigad.models.weights import fetch_weights, torchvision_weights
from tests.real_data import cifar_resnet20, squeezenet


def test_features_survive_saving_and_are_piecewise_linear_on_pixels(tmp_path):
    entry = {"train": "textures", "layer": "12"}
    torch.manual_seed(1)
    module = load_features.__globals__["_assemble"](entry, small_cnn()).eval()
    save_features(entry, module, tmp_path / "f.pt")
    again, x = restore_features(tmp_path / "f.pt"), 255 * torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(module(x), again(x))
    f = restrict(again, x[0].double(), x[1].double() - x[0].double(), (0.0, 1.0), dtype=torch.float64)
    there = 0.7 * x[0].double() + 0.3 * x[1].double()
    torch.testing.assert_close(f(0.3), again.double()(there[None])[0], rtol=1e-9, atol=1e-11)
    with pytest.raises(MissingDataError, match="prepares the features"):
        restore_features(tmp_path / "g.pt")


def test_pixels_at_a_lower_resolution_need_no_weights(tmp_path):
    entry = {"architecture": "pixels", "resize": [2, 2], "pool": False}
    save_features(entry, load_features(entry), tmp_path / "pixels.pt")
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = x.reshape(1, 1, 2, 2, 2, 2).mean(dim=(3, 5))
    torch.testing.assert_close(restore_features(tmp_path / "pixels.pt")(x), expected)


def test_truncation_at_a_layer_equals_the_network_up_to_it():
    network = small_cnn().eval()
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(Truncated(network, "5")(x), network[:6](x))
    with pytest.raises(ConfigurationError, match="no layer 'nine'"):
        Truncated(network, "nine")


def test_weights_by_their_exact_name(tmp_path):
    assert torchvision_weights("ResNet18_Weights.IMAGENET1K_V1").url.endswith(".pth")
    with pytest.raises(ConfigurationError, match="only IMAGENET1K_V1"):
        torchvision_weights("ResNet18_Weights.IMAGENET")
    with pytest.raises(ConfigurationError, match="ResNet18_Weights"):
        torchvision_weights("ResNet18.IMAGENET1K_V1")
    wrong = tmp_path / "mirror.pth"
    wrong.write_bytes(b"something else")
    with pytest.raises(InvalidInputError, match="expected was f37072fd"):
        fetch_weights("ResNet18_Weights.IMAGENET1K_V1", tmp_path, url=wrong.as_uri())
    with pytest.raises(MissingDataError, match=r"network connection, or put the weights .* at"):
        fetch_weights("ResNet18_Weights.IMAGENET1K_V1", tmp_path, url=(tmp_path / "gone.pth").as_uri())


def test_real_weights_recognise_something():
    """The file of SqueezeNet names a cat a cat: channel order, mean and layers are right."""
    from skimage import data
    from skimage.transform import resize

    cat = resize(data.chelsea(), (227, 227), preserve_range=True).transpose(2, 0, 1)[None]
    logits = squeezenet("classifier")(torch.from_numpy(cat).float())
    assert {281, 282, 285} & set(logits[0].topk(3).indices.tolist())  # tabby, tiger cat, Egyptian cat
    assert cifar_resnet20("layer3")(torch.rand(2, 3, 32, 32) * 255).shape == (2, 64)
