"""Six models of anomalib with random weights. Skipped where it is not installed (extra "anomalib")."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad import Lattice, instance_test, selective_test
from sigad.errors import DetectorError, InvalidInputError
from sigad.models.adapters.anomaly_maps import against_reference, against_rest, flags, marks, pixels

SIZE = 64
NAMES = ["patchcore", "padim", "stfpm", "reverse_distillation", "efficient_ad", "draem"]


@pytest.fixture
def torch_models(monkeypatch):
    from sigad.models.vision import import_torchvision

    pytest.importorskip("torchvision")
    import_torchvision()
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install 'sigad[anomalib]'")
    timm = pytest.importorskip("timm")
    create = timm.create_model
    # The weights of STFPM's teacher are always downloaded; here they are random like those of all others.
    monkeypatch.setattr(timm, "create_model", lambda *args, **given: create(*args, **{**given, "pretrained": False}))
    torch.manual_seed(0)
    return lambda name: __import__(f"anomalib.models.image.{name}.torch_model", fromlist=["_"])


def build(name, module):
    """The model, fitted to normal images where it has to be, and the side of its images."""
    normal = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    layers = ["layer1", "layer2"]
    if name == "patchcore":
        model = module.PatchcoreModel(layers, "resnet18", pre_trained=False, num_neighbors=3).train()
        model(normal)
        model.subsample_embedding(0.05)
    elif name == "padim":
        model = module.PadimModel("resnet18", layers, pre_trained=False, n_features=10).train()
        model(normal)
        model.fit()
    elif name == "stfpm":
        model = module.STFPMModel(layers, "resnet18")
    elif name == "reverse_distillation":
        from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode

        model = module.ReverseDistillationModel(
            "resnet18", (SIZE, SIZE), [*layers, "layer3"], AnomalyMapGenerationMode.ADD, pre_trained=False
        )
    elif name == "efficient_ad":
        return module.EfficientAdModel(teacher_out_channels=16).eval(), 256  # its autoencoder asks for that size
    else:
        model = module.DraemModel()
    return model.eval(), SIZE


@pytest.mark.parametrize("name", NAMES)
def test_anomalib(name, torch_models):
    model, size = build(name, torch_models(name))
    image = torch.randn(3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        answer = model(image[None])
    threshold = float(answer.anomaly_map.flatten().quantile(0.9))
    detect = marks(model, threshold, resolution=size // 4)
    few = {"engine": Lattice(spacing=0.5, batch=8), "tolerance": 0.3}  # enough to see that it works
    result = selective_test(image, detect, against_rest(image.shape), covariance=1.0, **few)
    assert result.selection.shape == (4, 4)
    assert result.status == ("not_selected" if result.selection.all() else "tested")
    assert result.status == "not_selected" or 0 < result.p_value <= 1
    references = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(3))
    flagged = flags(model, float(answer.pred_score) - 0.01 * abs(float(answer.pred_score)))
    result = instance_test(image, references, detect=flagged, covariance=1.0, **few)
    assert result.status == "tested" and 0 < result.p_value <= 1


class Distance(nn.Module):
    """A map without anomalib: the distance from the image's median, smoothed."""

    def forward(self, images):
        centre = images.flatten(1).median(1).values[:, None, None, None]
        return nn.functional.avg_pool2d((images - centre).abs().mean(1, keepdim=True), 3, 1, 1)


def test_the_contrasts():
    mask = np.zeros((2, 3), bool)
    mask[0, 1] = True
    inside = pixels(mask, (4, 5))
    assert inside.shape == (4, 5) and inside.sum() == 4 and inside[:2, 2:4].all()
    rest, reference = against_rest((3, 4, 5))(mask), against_reference((2, 3, 4, 5))(mask)
    assert rest.shape == (3, 4, 5) and rest.sum() == pytest.approx(0) and rest[:, inside].sum() == pytest.approx(1)
    assert reference.shape == (2, 3, 4, 5) and reference[0].sum() == pytest.approx(1) == -reference[1].sum()
    assert against_rest((3, 4, 5))(~mask | True) is None and against_reference((2, 3, 4, 5))(mask & False) is None


def test_a_map_against_a_reference():
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 1, 12, 12, generator=generator, dtype=torch.float64)
    pair[0, :, 3:6, 3:6] += 3
    detect = marks(Distance().eval(), 1.9, resolution=3)
    result = selective_test(pair, lambda b: detect(b[:, 0]), against_reference(pair.shape), covariance=1.0)
    assert result.status == "tested" and result.selection[1, 1] and result.p_value < 0.05


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (Distance().train(), {}, "eval"),
        (lambda images: images, {}, "torch.nn.Module, not function"),
        (Distance().eval(), {"threshold": "auto"}, "threshold"),
        (Distance().eval(), {"resolution": 2.5}, "resolution"),
    ],
)
def test_what_marks_nothing_is_refused(model, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        marks(model, **({"threshold": 1.0} | settings))


def test_a_score_is_no_map():
    detect = marks(nn.Sequential(nn.Flatten(), nn.Linear(9, 1)).eval(), 0.0)
    with pytest.raises(DetectorError, match="must return maps"):
        selective_test(torch.zeros(1, 3, 3), detect, against_rest((1, 3, 3)), covariance=1.0)
