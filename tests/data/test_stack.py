"""Prepared stacks: roles by patient, what is left out, and mistakes in what comes in."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sigad.data.brain import bounding_box, brain_mask, head_mask, normalise
from sigad.data.pictures import resample
from sigad.data.stack import ROLES, ImageStack, Preparation, Series, prepare
from sigad.errors import InvalidInputError, MissingDataError
from tests.data.volumes import SIDE, head

BRAIN = Preparation(size=16, levels=(0.2, 0.9), brain="found", align=True, intensity="robust", clip=4.0)


def series(patient, rng, *, slices=8, tumours=(3, 4)):
    pairs = [head(rng, tumour=k in tumours) for k in range(slices)]
    pixels, masks = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    return Series(patient, [f"{patient}_{k}" for k in range(slices)], pixels[:, None], masks)


@pytest.fixture(scope="module")
def patients():
    rng = np.random.default_rng(0)
    return [series(f"p{i:02d}", rng) for i in range(20)]


def test_patients_have_one_role_and_images_one_line(patients, tmp_path):
    stack = prepare(patients, BRAIN, name="made", seed=1)
    assert stack.images.shape[1:] == (1, 16, 16) and set(stack.roles) == set(ROLES)
    roles = {group: set(stack.roles[stack.groups == group]) for group in np.unique(stack.groups)}
    assert all(len(found) == 1 for found in roles.values()) and len(roles) == 20
    assert sum(found == {"test"} for found in roles.values()) == 5  # a quarter
    # Tumours outside of the test patients are left out, and every slice of the source is accounted for.
    assert (stack.roles[stack.anomalous] == "test").all() and len(stack.which("test", anomalous=True)) == 10
    lines = stack.manifest()
    assert len({line.name for line in lines}) == len(lines) == 20 * 8
    assert all(bool(line.role) != bool(line.reason) for line in lines)
    reasons = {line.reason for line in stack.left_out}
    assert "its level is outside 0.2..0.9" in reasons and "an anomaly of a patient for train" in reasons
    stack.save(tmp_path / "made.npz", tmp_path / "made.csv")
    again = ImageStack.load(tmp_path / "made.npz")
    for part in dataclasses.fields(stack):
        np.testing.assert_array_equal(getattr(again, part.name), getattr(stack, part.name))
    assert len(pd.read_csv(tmp_path / "made.csv")) == len(lines)
    with pytest.raises(MissingDataError, match="prepare the images"):
        ImageStack.load(tmp_path / "other.npz")


def test_the_split_depends_on_the_seed_only(patients):
    one, same, other = (prepare(patients, BRAIN, name="made", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.images, same.images)
    np.testing.assert_array_equal(one.roles, same.roles)
    assert not np.array_equal(
        dict(zip(one.groups, one.roles, strict=True)), dict(zip(other.groups, other.roles, strict=True))
    )


def test_the_brain_is_found_without_skull_and_scalp():
    image, _ = head(np.random.default_rng(0))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    radius = np.hypot(y / 1.1, x) / (0.42 * SIDE)
    overlap = lambda found, true: (found & true).sum() / (found | true).sum()  # noqa: E731
    assert overlap(head_mask(image), radius < 1) > 0.97
    assert overlap(brain_mask(image), radius < 0.85) > 0.93
    assert not brain_mask(image)[radius > 0.93].any()
    for empty in (np.zeros((9, 9)), np.ones((9, 9))):
        assert not head_mask(empty).any() and not brain_mask(empty).any()


def test_alignment_and_intensity_undo_shift_size_and_scanner():
    rng = np.random.default_rng(1)
    image, mask = head(rng, tumour=True)
    moved = np.full((SIDE + 20, SIDE + 20), image.min())
    moved[13 : 13 + SIDE, 4 : 4 + SIDE] = image
    shifted = np.zeros(moved.shape, bool)
    shifted[13 : 13 + SIDE, 4 : 4 + SIDE] = mask
    pair = [
        Series(name, ["a_" + name], a[None, None], m[None])
        for name, a, m in (("p", image, mask), ("q", 3 * moved + 40, shifted))
    ]
    shares = dict.fromkeys(ROLES, 0.0) | {"test": 1.0}
    stack = prepare(pair, dataclasses.replace(BRAIN, levels=(0, 1)), name="two", seed=0, shares=shares)
    np.testing.assert_allclose(stack.images[0], stack.images[1], atol=1e-4)
    np.testing.assert_array_equal(stack.masks[0], stack.masks[1])


def test_intensities():
    rng = np.random.default_rng(2)
    image, mask = 50 + 7 * rng.standard_normal((1, 30, 30)), np.arange(900).reshape(30, 30) < 600
    for kind, tolerance in (("zscore", 1e-6), ("robust", 0.1), ("ranks", 0.02)):
        inside = normalise(image, mask, kind)[0][mask]
        assert abs(inside.mean()) < tolerance and abs(inside.std() - 1) < tolerance
        np.testing.assert_allclose(normalise(2 * image + 5, mask, kind)[0][mask], inside, atol=1e-4)
    with pytest.raises(InvalidInputError, match="constant"):
        normalise(np.ones((1, 4, 4)), np.ones((4, 4), bool), "robust")
    with pytest.raises(InvalidInputError, match="none, zscore, robust, ranks"):
        normalise(image, mask, "log")


def test_resampling_takes_means():
    image = np.arange(64.0).reshape(8, 8)
    np.testing.assert_allclose(resample(image, 4), image.reshape(4, 2, 4, 2).mean((1, 3)))
    np.testing.assert_allclose(resample(image, 2, (2, 4, 6, 8)), image[2:6, 4:8].reshape(2, 2, 2, 2).mean((1, 3)))
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3] = True
    assert bounding_box(mask) == (2, 3, 5, 4)


def test_slices_that_cannot_be_used_are_recorded(patients):
    rng = np.random.default_rng(3)
    odd = series("odd", rng, slices=6, tumours=())
    pixels = odd.pixels.copy()
    pixels[2] = 0  # a slice of zeros
    tiny = np.zeros_like(odd.masks)
    tiny[3, 20, 20] = True  # an anomaly that is lost at the smaller size
    odd = dataclasses.replace(odd, pixels=pixels, masks=tiny)
    empty = Series("empty", ["empty_0", "empty_1"], np.zeros((2, 1, SIDE, SIDE)), np.zeros((2, SIDE, SIDE), bool))
    stack = prepare([*patients, odd, empty], dataclasses.replace(BRAIN, levels=(0, 1)), name="made", seed=1)
    reasons = {line.name: line.reason for line in stack.left_out}
    assert reasons["odd_2"] == reasons["empty_0"] == reasons["empty_1"] == "constant"
    assert reasons["odd_3"] == "its anomaly is smaller than a pixel at 16x16"
    assert "empty" not in stack.groups
    few = prepare(patients, dataclasses.replace(BRAIN, per_group=2), name="made", seed=1)
    assert max(np.unique(few.groups[~few.anomalous], return_counts=True)[1]) == 2
    small = prepare(
        patients[:2], dataclasses.replace(BRAIN, per_group=1, least=0.2), name="s", seed=1, shares=only("test")
    )
    assert len(small) == 4  # one normal, one with a tumour, of both


def only(role):
    return dict.fromkeys(ROLES, 0.0) | {role: 1.0}


def test_one_error_names_everything_that_is_wrong(patients):
    bad = dataclasses.replace(patients[0], pixels=np.full_like(patients[0].pixels, np.nan))
    shape = dataclasses.replace(patients[1], masks=patients[1].masks[:, :5])
    colour = dataclasses.replace(patients[2], pixels=np.repeat(patients[2].pixels, 3, axis=1))
    twice = patients[3]
    with pytest.raises(InvalidInputError) as caught:
        prepare([*patients[3:], bad, shape, colour, twice], BRAIN, name="made", seed=0)
    message = str(caught.value)
    for part in ("p00: pixels that are not finite", "p01: masks must be", "p02: 3 channels, others have 1"):
        assert part in message
    with pytest.raises(InvalidInputError, match=r"(?s)p00: it comes without.*p01: it comes without"):
        prepare(patients, dataclasses.replace(BRAIN, brain="given"), name="made", seed=0)
    assert "p03: p03_0: a second image of this name" in message
    with pytest.raises(InvalidInputError, match=r"too few: none is left for"):
        prepare(patients[:3], BRAIN, name="made", seed=0)
    with pytest.raises(InvalidInputError, match="no image is left: constant"):
        prepare([Series("e", ["e"], np.zeros((1, 1, 9, 9)), np.zeros((1, 9, 9), bool))], BRAIN, name="made", seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": [[1.0]]}, "must be NumPy arrays"),
        ({"names": "slice"}, "names a list of text"),
        ({"pixels": 1j}, "real numbers"),
        ({"testing": "yes"}, "testing must be"),
    ],
)
def test_a_series_of_the_wrong_kind_is_named(patients, change, message):
    first = patients[0]
    change = {key: first.pixels * value if value == 1j else value for key, value in change.items()}
    with pytest.raises(InvalidInputError, match=f"{first.group}: .*{message}"):
        prepare([dataclasses.replace(first, **change), *patients[1:]], BRAIN, name="made", seed=0)
    for series in (first, [first.pixels]):
        with pytest.raises(InvalidInputError, match="images come as"):
            prepare(series, BRAIN, name="made", seed=0)
    with pytest.raises(InvalidInputError, match="seed"):
        prepare(patients, BRAIN, name="made", seed=-1)


def test_a_file_that_is_no_stack(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "junk.npz").write_text("junk", encoding="utf-8")
    for name in ("other.npz", "junk.npz"):
        with pytest.raises(InvalidInputError, match=f"{name} cannot be read as a stack"):
            ImageStack.load(tmp_path / name)


def test_a_patient_in_two_roles_is_refused(patients):
    stack = prepare(patients, BRAIN, name="made", seed=1)
    train, test = (np.unique(stack.groups[stack.roles == role])[0] for role in ("train", "test"))
    groups = np.where(stack.groups == train, test, stack.groups)
    with pytest.raises(InvalidInputError, match=rf"{test} is in (test and train|train and test)"):
        dataclasses.replace(stack, groups=groups)
    roles = np.where(stack.roles == "test", "noise", stack.roles)
    with pytest.raises(InvalidInputError, match="has an anomaly and the role noise"):
        dataclasses.replace(stack, roles=roles)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"levels": (0.5, 0.5)},
        {"brain": "skull"},
        {"align": True},
        {"intensity": "log"},
        {"per_group": 0},
        {"clip": 3.0},
        {"size": (64, 64)},
        {"levels": 0.5},
        {"least": 5.0},
        {"gray": "no"},
    ],
)
def test_wrong_preparations(wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        Preparation(**wrong)


def test_sets_that_say_what_is_for_testing():
    rng = np.random.default_rng(4)
    zeros = np.zeros((1, 8, 8), bool)
    images = [Series(f"i{i}", [f"i{i}"], rng.random((1, 3, 8, 8)), zeros, testing=i >= 12) for i in range(16)]
    stack = prepare(images, Preparation(size=8, standardise=True), name="parts", seed=0)
    assert {g for g, r in zip(stack.groups, stack.roles, strict=True) if r == "test"} == {
        f"i{i}" for i in range(12, 16)
    }
    train = stack.of("train")
    np.testing.assert_allclose(train.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(train.std((0, 2, 3)), 1, atol=1e-6)
    assert prepare(images, Preparation(size=8, gray=True), name="parts", seed=0).images.shape[1] == 1
