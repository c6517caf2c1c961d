"""The kind localization_images: whole real images, split by patient, from their sources to rows."""

import numpy as np
import pytest
import torch
from scipy import stats

from sigad.data import stack_sources
from sigad.data.sealed import seal_folder
from sigad.data.stack import ImageStack, Preparation, prepare
from sigad.data.textures import read_texture
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.localization.setup import set_up
from sigad.models import autoencoder
from sigad.models.components import ComponentReconstruction
from sigad.seeds import trial_streams
from sigad.study import methods
from sigad.study.kinds.localization_images import LocalizationImages
from sigad.study.run import run_trials
from tests.data.volumes import write_brats, write_lgg, write_mvtec

METHODS = [name for name in methods.names() if methods.load(name).needs <= LocalizationImages.offers]
ENTRY = {"source": "package", "side": 32, "prepare": {"standardise": True}}


@pytest.fixture(scope="module")
def stack():
    return stack_sources.make("brick", ENTRY, "data", size=16, seed=1)


def run(method, stack, repetitions=range(8), network=None, **changes):
    setting = LocalizationImages(**{"size": 16, "flagged": 0.5, "resolution": 4, **changes})
    streams, method = trial_streams(3, "localization_images", "here", repetitions), methods.load(method)
    few = {"permutations": 20} if "permutations" in method.keys() else {}
    return run_trials(setting, method(**few), streams, stack=stack, network=network)


@pytest.mark.parametrize("method", METHODS)
def test_every_baseline(method, stack):
    # The mean filter hardly leaves anything to be marked in permuted pixels.
    changes = {"filter_size": 1, "flagged": 0.9} if method == "permutation" else {}
    rows, reference = run(method, stack, **changes), run("naive", stack, **changes)
    tested = rows["status"] == "tested"
    assert 0 < tested.sum() and not rows["reason"].any()
    if methods.load(method).hypotheses is methods.Method.hypotheses:
        np.testing.assert_array_equal(rows["statistic"], reference["statistic"])
    assert ((rows["p_low"] <= rows["p_value"]) & (rows["p_value"] <= rows["p_high"]))[tested].all()
    parts = [run(method, stack, range(start, start + 4), **changes) for start in (0, 4)]
    for name in ("status", "statistic", "p_value"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows[name])


@pytest.mark.parametrize("method", ["naive", "bonferroni", "wo_pp"])
def test_the_law_of_an_estimated_scale_is_that_of_every_method(method, stack):
    """The beta law has heavier tails than the normal one: with the same statistic its p-values are larger."""
    rows = run(method, stack)
    tested, references = rows["status"] == "tested", len(np.unique(stack.groups[stack.roles == "reference"]))
    t = np.abs(rows["statistic"][tested])
    naive = 2 * stats.t.sf(t, references - 1)
    if method == "naive":
        np.testing.assert_allclose(rows["p_value"][tested], naive, rtol=1e-9)
    elif method == "bonferroni":
        np.testing.assert_allclose(rows["p_value"][tested], np.minimum(1, 2.0**256 * naive), rtol=1e-9)
    else:
        assert ((0 < rows["p_value"]) & (rows["p_value"] <= 1))[tested].all() and (rows["p_value"][tested] < 1).any()
    known = run(method, stack, scale="held-out")
    assert (known["status"] == rows["status"]).all() and (known["statistic"] != rows["statistic"])[tested].all()


def test_anomalies_are_false_hypotheses_where_they_are_met(stack):
    normal, anomaly = (run("naive", stack, range(12), instance=instance) for instance in ("normal", "anomaly"))
    true = normal["null_true"][normal["status"] == "tested"]
    assert (true == True).all()  # noqa: E712
    assert (anomaly["null_true"][anomaly["status"] == "tested"] == False).any()  # noqa: E712


def test_a_network_is_loaded_from_its_sealed_folder(stack, tmp_path):
    network, _ = autoencoder.train(torch.from_numpy(stack.of("train")).float(), seed=0, epochs=2, widths=(4, 8))
    network.save_pretrained(tmp_path / "network")
    seal_folder(tmp_path / "network")
    stack.save(tmp_path / "stack.npz")
    setting = LocalizationImages(dataset="brick", size=16, detector="autoencoder")
    assert setting.inputs("e") == {
        "stack": "stacks/brick_size=16.npz",
        "network": "detectors/brick_size=16_autoencoder",
    }
    given = setting.load({"stack": tmp_path / "stack.npz", "network": tmp_path / "network"})
    rows = run("naive", detector="autoencoder", **given)
    assert (rows["status"] == "tested").any()
    (tmp_path / "network" / "config.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="altered"):
        setting.load({"stack": tmp_path / "stack.npz", "network": tmp_path / "network"})


def test_sources_become_stacks(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(10):
        write_brats(tmp_path / "volumes", f"BraTS-GLI-{i:05d}-000", rng)
        write_lgg(tmp_path / "data" / "lgg" / "kaggle_3m", f"TCGA_CS_494{i}_19960909", rng)
    write_mvtec(tmp_path / "data" / "mvtec_ad" / "tile", rng)
    entries = {
        "volumes": {
            "source": "brats",
            "folder": str(tmp_path / "volumes"),
            "prepare": {"brain": "given", "align": True},
        },
        "lgg": {"source": "lgg", "prepare": {"levels": [0.2, 0.9], "brain": "found", "align": True}},
        "tile": {"source": "mvtec", "prepare": {"gray": True}},
    }
    for name, entry in entries.items():
        made = stack_sources.make(name, entry, tmp_path / "data", size=16, seed=0)
        assert isinstance(made, ImageStack) and made.images.shape[1:] == (1, 16, 16)
        assert made.which("test", anomalous=True).size and made.which("train").size
        images = {"tile": {"source": "mvtec"}}
        assert stack_sources.availability(name, entry, tmp_path / "data", images)[0]


def test_what_cannot_be_had_says_why(tmp_path, monkeypatch):
    monkeypatch.delenv("SYNAPSE_AUTH_TOKEN", raising=False)
    monkeypatch.setattr("sigad.data.stack_sources.has_kaggle_credentials", lambda: False)
    config = {
        "data": str(tmp_path),
        "stacks": {
            "b": {"source": "brats"},
            "l": {"source": "lgg"},
            "m": {"source": "mvtec"},
            "f": {"source": "lgg", "folder": str(tmp_path / "none")},
        },
    }
    for name, reason in (("b", "SYNAPSE_AUTH_TOKEN"), ("l", "Kaggle"), ("m", "stacks: m: folder"), ("f", "none")):
        with pytest.raises(MissingDataError, match=reason):
            LocalizationImages(dataset=name).require(config)
    with pytest.raises(ConfigurationError, match="stack of images"):
        LocalizationImages(dataset="bb").require(config)
    with pytest.raises(ConfigurationError, match="multiple of 8"):
        LocalizationImages(size=20)
    with pytest.raises(ConfigurationError, match="odd"):
        LocalizationImages(filter_size=2)


def test_set_up_uses_no_test_image(stack):
    """Whatever the test images are, everything that is fixed beforehand stays the same to the last bit."""
    network = ComponentReconstruction(torch.from_numpy(stack.of("train")))
    images = stack.images.copy()
    images[stack.roles == "test"] = 7
    images[stack.roles == "calibration"] = -7
    other = ImageStack(stack.name, images, stack.masks, stack.within, stack.names, stack.groups, stack.roles)
    one, two = (set_up(s, network, resolution=4) for s in (stack, other))
    assert one.detector.threshold == two.detector.threshold and repr(one) == repr(two)
    np.testing.assert_array_equal(one.references, two.references)
    vector = np.arange(one.model.sd.size, dtype=float)
    np.testing.assert_array_equal(one.model @ vector, two.model @ vector)
    assert len(one.references) == len(np.unique(stack.groups[stack.roles == "reference"]))
    marked = one.detector.scores(stack.of("noise"))[:, one.detector.within].max(1) > one.detector.threshold
    assert marked.mean() == pytest.approx(0.3, abs=0.05)


def test_pilots_have_no_part_in_a_trial(stack):
    """Neither the images under test nor the references are among them."""
    setting, streams = LocalizationImages(size=16, flagged=0.5), trial_streams(3, "e", "here", range(8))
    given = {"stack": stack, "network": None}
    pilots = [problems.trials[0] for _, problems in setting.pilots(streams, **given)]
    trial = next(problems.trials[0] for _, problems in setting.draw(streams, **given))
    of = lambda role: {image.tobytes() for image in stack.of(role)}  # noqa: E731
    for pilot in pilots:
        assert pilot.x.tobytes() in of("calibration") and {r.tobytes() for r in pilot.x_ref} <= of("noise")
    assert trial.x.tobytes() in of("test") and {r.tobytes() for r in trial.x_ref} <= of("reference")


def test_set_up_mistakes():
    stack = prepare(read_texture("grass", side=64), Preparation(size=16), name="grass", seed=0)
    network = ComponentReconstruction(torch.from_numpy(stack.of("train")))
    with pytest.raises(InvalidInputError, match="flagged"):
        set_up(stack, network, flagged=1.0)
    with pytest.raises(InvalidInputError, match="references or held-out"):
        set_up(stack, network, scale="known")
    with pytest.raises(InvalidInputError, match="brick, grass, gravel"):
        next(read_texture("wood"))
