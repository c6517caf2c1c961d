"""Where whole images come from: BraTS, TCGA-LGG and MVTec AD in their true layouts, and mistakes in them."""

import gzip
import itertools
import resource
import sys
import types
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from sigad.data import brats, lgg, mvtec
from sigad.data.files import put_there
from sigad.data.pictures import read_picture
from sigad.data.stack import Preparation, Series, prepare
from sigad.errors import InvalidInputError, MissingDataError, MissingPackageError, StorageError
from tests.data.volumes import SIDE, SLICES, stripped, write_brats, write_lgg, write_mvtec
from tests.real_data import shared


def test_pictures_of_any_mode_have_one_scale(tmp_path):
    rng = np.random.default_rng(0)
    gray, colour = rng.integers(0, 256, (6, 5), dtype=np.uint8), rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    pictures = {
        "gray": (Image.fromarray(gray), gray[None]),
        "colour": (Image.fromarray(colour), np.moveaxis(colour, -1, 0)),
        "deep": (Image.fromarray(gray.astype(np.uint16) * 257), gray[None]),
        "bits": (Image.fromarray(gray > 127), 255.0 * (gray > 127)[None]),
        "palette": (Image.fromarray(gray).convert("P"), gray[None]),
        "opaque": (Image.fromarray(colour).convert("RGBA"), np.moveaxis(colour, -1, 0)),
    }
    for name, (picture, expected) in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        np.testing.assert_allclose(read_picture(tmp_path / f"{name}.png"), expected, rtol=1e-6, err_msg=name)


def test_pictures_that_have_no_value(tmp_path):
    clear = Image.fromarray(np.zeros((4, 4, 4), np.uint8))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "real.tif")
    first = Image.fromarray(np.zeros((4, 4), np.uint8))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[first])
    (tmp_path / "cut.png").write_bytes((tmp_path / "clear.png").read_bytes()[:60])
    for name, match in (
        ("clear.png", "transparent"),
        ("real.tif", "mode F"),
        ("pages.tif", "2 pages"),
        ("cut.png", "cut.png"),
        ("none.png", "none.png"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            read_picture(tmp_path / name)


def test_volumes_are_read_alike_however_they_are_stored(tmp_path):
    for axes in ("RAS", "LPS", "SAR", "PIR"):
        write_brats(tmp_path / axes, "BraTS-GLI-00007-000", np.random.default_rng(3), axes=axes)
    flair, labels = stripped(np.random.default_rng(3))
    for axes in ("RAS", "LPS", "SAR", "PIR"):
        (one,) = brats.read_folder(tmp_path / axes)
        assert one.group == "BraTS-GLI-00007" and one.names[3] == "BraTS-GLI-00007-000_003"
        assert one.pixels.shape == (SLICES, 1, SIDE, SIDE)
        np.testing.assert_array_equal(one.pixels[:, 0], flair.transpose(2, 1, 0)[:, ::-1])
        np.testing.assert_array_equal(one.masks, labels.transpose(2, 1, 0)[:, ::-1] > 0)
        np.testing.assert_array_equal(one.brain, one.pixels[:, 0] != 0)
    # The tumour of the made head is above and to the right of the middle.
    rows, columns = np.nonzero(one.masks[4])
    assert rows.mean() < SIDE / 2 < columns.mean()


def test_brats_from_folder_to_stack(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(10):
        write_brats(tmp_path, f"BraTS-GLI-{i:05d}-000", rng)
    write_brats(tmp_path, "BraTS-GLI-00003-001", rng)  # a later examination of a patient
    how = Preparation(size=16, brain="given", align=True, intensity="robust", levels=(0.1, 0.9))
    stack = prepare(brats.read_folder(tmp_path), how, name="brats", seed=0)
    assert len(np.unique(stack.groups)) == 10 and len(np.unique(stack.roles[stack.groups == "BraTS-GLI-00003"])) == 1
    assert {line.reason for line in stack.left_out} > {"constant"}
    assert stack.which("test", anomalous=True).size >= 4


def test_broken_volumes_are_named_together(tmp_path):
    rng = np.random.default_rng(0)
    files = {i: write_brats(tmp_path, f"BraTS-GLI-{i:05d}-000", rng) for i in range(6)}
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])  # truncated
    image = nib.load(files[1])
    pixels = image.get_fdata()
    nib.save(nib.Nifti1Image(pixels[:, :-1], image.affine), files[1])
    bare = nib.Nifti1Image(pixels, None)
    nib.save(bare, files[2])  # no orientation
    pixels[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(pixels, image.affine), files[3])
    files[4].write_bytes(gzip.compress(b"nothing"))
    for i in (6, 7):
        write_brats(tmp_path, f"BraTS-GLI-0000{i}-000", rng)
        (tmp_path / f"BraTS-GLI-0000{i}-000" / f"BraTS-GLI-0000{i}-000-seg.nii.gz").unlink()
    write_brats(tmp_path, "BraTS-GLI-00008-000", rng)
    good = []
    with pytest.raises(InvalidInputError) as caught:
        good.extend(brats.read_folder(tmp_path))
    message = str(caught.value)
    assert [one.group[-2:] for one in good] == ["05", "08"]
    assert len(message.splitlines()) == 8 and all(f"0000{i}-000" in message for i in (0, 1, 2, 3, 4, 6, 7))
    for part in ("not on the grid", "orientation is not known", "not finite", "7-000: no segmentation"):
        assert part in message
    with pytest.raises(InvalidInputError, match=r"(?s)00006-000: no segmentation.*00007-000: no segmentation"):
        brats.find(tmp_path)
    # What the preparation finds by itself is told in the same error.
    colour = Series("p", ["p"], np.ones((1, 3, 4, 4)), np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), bool))
    twice = [replace(colour, names=[name], testing=role) for name, role in (("q", True), ("r", False))]
    with pytest.raises(InvalidInputError) as caught:
        every = itertools.chain([colour, *twice], brats.read_folder(tmp_path))
        prepare(every, Preparation(size=4, brain="given"), name="all", seed=0)
    told = str(caught.value)
    for part in ("p: for testing in one series and not in another", "BraTS-GLI-00005: 1 channels, others have 3"):
        assert part in told
    assert all(line in told for line in message.splitlines()[1:])
    with pytest.raises(MissingDataError, match="no FLAIR volumes"):
        brats.find(tmp_path / "empty")


def test_brats_without_an_account_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("SYNAPSE_AUTH_TOKEN", raising=False)
    with pytest.raises(MissingDataError) as caught:
        brats.fetch(tmp_path)
    assert all(
        part in str(caught.value) for part in ("SYNAPSE_AUTH_TOKEN", "syn51514132", str(brats.folder_of(tmp_path)))
    )
    monkeypatch.setenv("SYNAPSE_AUTH_TOKEN", "secret")
    monkeypatch.setitem(sys.modules, "synapseclient", None)
    with pytest.raises((MissingPackageError, ImportError), match="synapseclient"):
        brats.fetch(tmp_path)


def test_brats_is_fetched_with_a_token_and_unpacked(tmp_path, monkeypatch):
    source = tmp_path / "source" / brats.ARCHIVE
    write_brats(source, "BraTS-GLI-00000-000", np.random.default_rng(0))

    class Synapse:
        def __init__(self, **_):
            self.token = None

        def login(self, authToken):
            self.token = authToken

        def get(self, entity, downloadLocation):
            assert (self.token, entity) == ("secret", "syn51514132")
            path = f"{downloadLocation}/{brats.ARCHIVE}.zip"
            with zipfile.ZipFile(path, "w") as file:
                for one in sorted(source.rglob("*.nii.gz")):
                    file.write(one, one.relative_to(source.parent))
            return types.SimpleNamespace(path=path)

    monkeypatch.setenv("SYNAPSE_AUTH_TOKEN", "secret")
    monkeypatch.setitem(sys.modules, "synapseclient", types.SimpleNamespace(Synapse=Synapse))
    folder = brats.fetch(tmp_path / "data")
    assert folder == brats.folder_of(tmp_path / "data") and len(brats.find(folder)) == 1
    monkeypatch.delenv("SYNAPSE_AUTH_TOKEN")
    assert brats.fetch(tmp_path / "data") == folder  # no account is needed any more
    assert put_there(folder) is None  # nothing in it is anybody's own


@pytest.fixture
def lgg_at_kaggle(tmp_path, monkeypatch):
    """One patient in the folder of kagglehub; the names that it was asked for."""
    write_lgg(tmp_path / "cache/lgg-mri-segmentation/kaggle_3m", "TCGA_CS_4941_19960909", np.random.default_rng(0))
    asked = []
    download = lambda slug: asked.append(slug) or str(tmp_path / "cache")  # noqa: E731
    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=download))
    monkeypatch.setattr("sigad.data.lgg.has_kaggle_credentials", lambda: True)
    return asked


def test_lgg_that_cannot_be_kept_leaves_nothing(tmp_path, lgg_at_kaggle):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 8, before[1]))  # as if the disk were full
    try:
        with pytest.raises(StorageError, match=r"kaggle_3m could not be written \(.*File too large.*make room"):
            lgg.fetch(tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "data").rglob("*.tif")) == []


def test_lgg_is_fetched_from_kaggle(tmp_path, lgg_at_kaggle):
    folder = lgg.fetch(tmp_path / "data")
    assert folder == lgg.folder_of(tmp_path / "data") == lgg.fetch(tmp_path / "data")
    assert lgg_at_kaggle == ["mateuszbuda/lgg-mri-segmentation"] and len(list(lgg.read_folder(folder))) == 1
    assert put_there(folder) is None
    next(folder.rglob("*_mask.tif")).unlink()
    assert put_there(folder) is not None


def test_lgg_from_folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(2):
        write_lgg(tmp_path / "lgg" / "kaggle_3m", f"TCGA_CS_494{i}_19960909", rng, slices=11)
    assert lgg.fetch(tmp_path) == tmp_path / "lgg" / "kaggle_3m"
    one, other = lgg.read_folder(lgg.fetch(tmp_path))
    assert one.group == "TCGA_CS_4940_19960909" and other.group == "TCGA_CS_4941_19960909"
    assert [name.rpartition("_")[2] for name in one.names] == [str(k) for k in range(1, 12)]  # 2 before 10
    assert one.pixels.shape == (11, 1, SIDE, SIDE) and one.pixels.max() > 150  # the second channel
    np.testing.assert_array_equal(np.flatnonzero(one.masks.any((1, 2))), [3, 4])
    monkeypatch.setattr("sigad.data.lgg.has_kaggle_credentials", lambda: False)
    with pytest.raises(MissingDataError, match=r"(?s)KAGGLE_API_TOKEN.*kaggle_3m to"):
        lgg.fetch(tmp_path / "elsewhere")
    with pytest.raises(MissingDataError, match="no slices"):
        list(lgg.read_folder(tmp_path))


def test_lgg_mistakes_are_named_together(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        write_lgg(tmp_path, f"TCGA_CS_494{i}_19960909", rng)
    place = tmp_path / "TCGA_CS_4940_19960909"
    small = Image.fromarray(np.zeros((SIDE // 2, SIDE), np.uint8))
    small.save(place / "TCGA_CS_4940_19960909_3_mask.tif")
    cut = place / "TCGA_CS_4940_19960909_7.tif"
    cut.write_bytes(cut.read_bytes()[:200])
    (place / "TCGA_CS_4940_19960909_5_mask.tif").unlink()
    (place / "notes.tif").write_bytes(b"")
    reading = lgg.read_folder(tmp_path)
    assert next(reading).group == "TCGA_CS_4941_19960909"  # all slices of which can be used
    with pytest.raises(
        InvalidInputError, match=r"(?s)4 of the files.*_5_mask\.tif: missing.*notes\.tif: not a name"
    ) as caught:
        next(reading)
    assert "_3.tif" in str(caught.value) and "_7.tif" in str(caught.value)


def test_whole_images_in_the_layout_of_mvtec(tmp_path):
    folder = write_mvtec(tmp_path / "tile", np.random.default_rng(0))
    images = list(mvtec.read_pictures(folder))
    assert len(images) == 19 and images[0].group == "train/good/000.png" and images[0].pixels.shape == (1, 3, 20, 20)
    assert [image.testing for image in images] == [False] * 12 + [True] * 7
    stack = prepare(images, Preparation(size=10, standardise=True), name="tile", seed=0)
    assert len(stack.which("test")) == 4 and len(stack.which("test", anomalous=True)) == 3
    mask = stack.masks[stack.anomalous][0]
    assert mask[:5, 3:7].all() and mask.sum() <= 5 * 6


def test_mvtec_mistakes_are_named_together(tmp_path):
    rng = np.random.default_rng(0)
    folder = write_mvtec(tmp_path / "tile", rng)
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(folder / "train/good/003.png")  # another size
    cut = folder / "test/good/001.png"
    cut.write_bytes(cut.read_bytes()[:300])
    for i in (0, 2):
        (folder / f"ground_truth/crack/00{i}_mask.png").unlink()
    good = []
    with pytest.raises(InvalidInputError, match=r"(?s)4 of the files.*003\.png.*24x20.*001\.png") as caught:
        good.extend(mvtec.read_pictures(folder))
    assert len(good) == 12 - 1 + 4 - 1 + 3 - 2
    assert all(f"00{i}_mask.png: missing" in str(caught.value) for i in (0, 2))
    with pytest.raises(MissingDataError, match="no images"):
        next(mvtec.read_pictures(tmp_path / "none"))


def test_real_lgg():
    path = shared("lgg_flair/lgg_flair_128.npz")
    few = [one for _, one in zip(range(12), lgg.read_npz(path), strict=False)]
    how = Preparation(size=32, levels=(0.5, 0.95), brain="found", align=True, intensity="robust", clip=4.0)
    stack = prepare(few, how, name="lgg", seed=0)
    assert len(stack.which("train")) > 20 and len(stack.which("test", anomalous=True)) > 5
    assert 0.4 < stack.common().mean() < 0.9  # the aligned brains overlap
    tumour, rest = (
        stack.images[stack.anomalous][:, 0][m]
        for m in (stack.masks[stack.anomalous], ~stack.masks[stack.anomalous] & stack.within[stack.anomalous])
    )
    assert np.median(tumour) > np.median(rest) + 1  # FLAIR is bright in tumours


def test_real_brats_2013():
    folder = shared("brats2013")
    found = brats.find(folder)
    assert len(found) == 4 and all(one.brain is not None for one in found)
    one = next(brats.read_folder(folder))
    assert one.pixels.shape == (155, 1, 240, 240) and 0.1 < one.brain.mean() < 0.3 and one.masks.any((1, 2)).sum() > 30
    assert not (one.masks & ~one.brain).any() or (one.masks & ~one.brain).sum() < 0.01 * one.masks.sum()
    # The head is longer than broad, and narrower in front.
    top, left, bottom, right = (lambda r, c: (r.min(), c.min(), r.max(), c.max()))(*np.nonzero(one.brain.any(0)))
    assert bottom - top > right - left


def test_real_mvtec():
    folder = shared("mvtec_ad_256/transistor")
    some = [one for i, one in enumerate(mvtec.read_pictures(folder)) if i % 8 == 0]
    stack = prepare(some, Preparation(size=64, standardise=True), name="transistor", seed=0)
    assert (
        stack.images.shape[1:] == (3, 64, 64) and stack.which("test").size and stack.which("test", anomalous=True).size
    )
    original = shared("mvtec_ad_original1024")
    assert any(read_picture(path).shape == (3, 1024, 1024) for path in sorted(original.rglob("*.png")))
