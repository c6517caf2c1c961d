"""Image sets: the archive of MVTec AD with its true layout, mistakes in it, textures, patches, splits, downloads."""

import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image

from sigad.data import images as im
from sigad.data import mvtec
from sigad.data.files import sha256_of
from sigad.errors import InvalidInputError, MissingDataError
from tests.real_data import ROOT, shared

SIZE = 20


@pytest.fixture
def category(tmp_path):
    """A small category with the layout of MVTec AD: 12 + 4 normal images, 3 + 2 with defects."""
    rng, folder = np.random.default_rng(0), tmp_path / "made" / "tile"

    def write(path, array):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    for part, number in (("train/good", 12), ("test/good", 4), ("test/crack", 3), ("test/oil", 2)):
        for i in range(number):
            write(folder / part / f"{i:03d}.png", rng.integers(0, 256, size=(SIZE, SIZE, 3), dtype=np.uint8))
            if part not in ("train/good", "test/good"):
                mask = np.zeros((SIZE, SIZE), np.uint8)
                mask[:5, 5:10] = 255
                write(folder / part.replace("test", "ground_truth") / f"{i:03d}_mask.png", mask)
    return folder


@pytest.fixture
def archive(category, tmp_path):
    path = tmp_path / "tile.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.add(category, "tile")
    return path


def test_an_archive_is_fetched_unpacked_and_read(archive, category, tmp_path, caplog):
    entry = {"source": "mvtec", "url": archive.as_uri(), "sha256": sha256_of(archive)}
    with caplog.at_level("INFO"):
        folder = mvtec.fetch("tile", entry, tmp_path / "data")
    assert "CC BY-NC-SA 4.0" in caplog.text
    assert folder == tmp_path / "data" / "mvtec_ad" / "tile"
    found = mvtec.read_category(folder, patch=5)
    assert found.images.shape == (21, 3, SIZE, SIZE) and found.normal.sum() == 16 and found.grid == (4, 4)
    assert found.names[0] == "train/good/000.png" and found.names[-1] == "test/oil/001.png"
    np.testing.assert_array_equal(found.anomalies(), [[i, 0, 1] for i in range(16, 21)])
    pixels = np.asarray(Image.open(category / "test/oil/001.png"))
    np.testing.assert_array_equal(found.patches([20, 3], (1, 2))[0], np.moveaxis(pixels, -1, 0)[:, 5:10, 10:15])
    assert mvtec.fetch("tile", {"source": "mvtec"}, tmp_path / "data") == folder  # no address is needed any more


def test_a_wrong_digest_a_broken_archive_and_a_missing_one(archive, tmp_path):
    with pytest.raises(InvalidInputError, match="sha256"):
        mvtec.fetch("tile", {"url": archive.as_uri(), "sha256": 64 * "0"}, tmp_path / "a")
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises(InvalidInputError, match="cannot be unpacked"):
        mvtec.fetch("tile", {"url": archive.as_uri()}, tmp_path / "b")
    with pytest.raises(MissingDataError, match=r"gone\.tar\.xz.*images: tile.*put the images into"):
        mvtec.fetch("tile", {"url": (tmp_path / "gone.tar.xz").as_uri()}, tmp_path / "c")
    assert not (tmp_path / "b" / "mvtec_ad" / "tile").exists()


def test_all_files_that_are_wrong_are_named_at_once(category):
    (category / "ground_truth" / "crack" / "001_mask.png").unlink()
    (category / "train" / "good" / "003.png").write_bytes(b"no image")
    broken = category / "test" / "good" / "002.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(category / "test" / "oil" / "000.png")
    with pytest.raises(InvalidInputError) as error:
        mvtec.read_category(category, patch=5)
    for part in ("4 of the files", "crack/001_mask.png: missing", "good/003.png", "good/002.png", "9x8 pixels"):
        assert part in str(error.value)


def test_an_incomplete_category_is_named(category):
    found = mvtec.read_category(category, patch=5)
    there = {"train": sum(n.startswith("train") for n in found.names), "defective": int((~found.normal).sum())}
    there["good"] = len(found) - sum(there.values())
    assert len(mvtec.read_category(category, patch=5, counts=there)) == len(found)
    (category / "train" / "good" / "001.png").unlink()
    with pytest.raises(
        InvalidInputError, match=rf"{there['train'] - 1} images of the part 'train', .* {there['train']}"
    ):
        mvtec.read_category(category, patch=5, counts=there)


def test_an_empty_folder(tmp_path):
    with pytest.raises(InvalidInputError, match="no images"):
        mvtec.read_category(tmp_path)


def test_sets_survive_saving(category, tmp_path):
    before = mvtec.read_category(category, patch=5)
    before.save(tmp_path / "x.npy", tmp_path / "x.json")
    after = im.ImageSet.load(tmp_path / "x.npy", tmp_path / "x.json")
    for name in ("images", "normal", "defect"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert (before.names, before.patch, before.name) == (after.names, after.patch, after.name)
    with pytest.raises(MissingDataError, match="prepares the images"):
        im.ImageSet.load(tmp_path / "y.npy", tmp_path / "y.json")
    np.save(tmp_path / "x.npy", 255 - before.images)
    with pytest.raises(InvalidInputError, match=r"x\.npy was altered.*remove it"):
        im.ImageSet.load(tmp_path / "x.npy", tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"x\.json cannot be read"):
        im.ImageSet.load(tmp_path / "x.npy", tmp_path / "x.json")


def test_splits_are_disjoint_and_hold_normal_images_only():
    images = im.texture_patches("brick")
    for seed in range(5):
        parts = im.split(images, np.random.default_rng(seed), 100)
        together = np.concatenate(parts)
        assert len(parts.pool) == 100 and len(np.unique(together)) == len(together) == images.normal.sum()
        assert images.normal[together].all()


def test_textures_have_patches_apart_from_the_training_strip():
    from skimage import data

    for name in im.TEXTURES:
        images, strip = im.texture_patches(name), im.texture_strips()[name]
        assert images.images.shape == (24 * 32, 1, 16, 16) and strip.shape == (128, 512)
        texture = getattr(data, name)()
        np.testing.assert_array_equal(images.images[33, 0], texture[128 + 16 : 128 + 32, 16:32])
        assert len(images.anomalies()) == (~images.normal).sum() == 128
        assert (images.defect[images.normal] == 0).all() and (images.defect[~images.normal] > im.DEFECTIVE).all()


def test_real_images_resized_and_original():
    manifest = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text(encoding="utf-8"))["images"]["transistor"]
    small = mvtec.read_category(shared("mvtec_ad_256/transistor"), patch=30, counts=manifest["counts"])
    assert small.images.shape[0] == 213 + 60 + 40 and small.normal.sum() == 273 and small.grid == (8, 8)
    assert len(small.anomalies()) > 40
    original = next(iter(sorted(shared("mvtec_ad_original1024/transistor").rglob("*.png"))))
    assert Image.open(original).size == (1024, 1024)
