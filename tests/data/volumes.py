"""Heads made for tests, in the layouts of the real sets."""

import nibabel as nib
import numpy as np
from PIL import Image

SIDE, SLICES = 48, 10


def head(rng, *, tumour=False, side=SIDE):
    """A slice (side, side) in 0..255 of a head with scalp, skull and brain, and the mask of its tumour."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(y / 1.1, x) / (0.42 * side)
    image = np.select([radius < 0.8, radius < 0.9, radius < 1], [110.0, 25.0, 200.0], 2.0)
    image[radius < 0.8] += 12 * rng.standard_normal(np.count_nonzero(radius < 0.8))
    mask = np.zeros((side, side), bool)
    if tumour:
        mask = np.hypot(y + side / 8, x - side / 8) < side / 8
        image[mask] += 100
    return image.clip(0, 255), mask


def stripped(rng, *, tumours=(4, 5), slices=SLICES):
    """A volume of a brain only, empty at both ends, and its labels: (x, y, z) arrays in RAS."""
    pairs = [head(rng, tumour=k in tumours) for k in range(slices)]
    image, labels = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    brain = np.hypot(y / 1.1, x) / (0.42 * SIDE) < 0.8
    image = np.where(brain, image, 0).astype(np.float32)
    image[0] = 0
    image[-1] = 0
    # Slices show the front of the head above: rows run against y.
    return tuple(a[:, ::-1].transpose(2, 1, 0) for a in (image, 2 * labels.astype(np.int16)))


def write_brats(folder, name, rng, *, axes="RAS", **options):
    """An examination in the layout of BraTS 2023, stored with the given axes; returns its FLAIR file."""
    place = folder / name
    place.mkdir(parents=True)
    start = nib.orientations.axcodes2ornt("RAS")
    way = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(axes))
    for kind, array in zip(("t2f", "seg"), stripped(rng, **options), strict=True):
        image = nib.Nifti1Image(array, np.eye(4)).as_reoriented(way)
        image.set_sform(image.affine, 1)
        nib.save(image, place / f"{name}-{kind}.nii.gz")
    return place / f"{name}-t2f.nii.gz"


def write_lgg(folder, patient, rng, *, slices=SLICES, tumours=(4, 5)):
    """A patient in the layout of kaggle_3m: RGB TIFFs whose second channel is FLAIR."""
    place = folder / patient
    place.mkdir(parents=True)
    for k in range(1, slices + 1):
        image, mask = head(rng, tumour=k in tumours)
        channels = np.stack([np.zeros_like(image), image, np.full_like(image, 7)], -1).astype(np.uint8)
        Image.fromarray(channels).save(place / f"{patient}_{k}.tif")
        Image.fromarray((255 * mask).astype(np.uint8)).save(place / f"{patient}_{k}_mask.tif")


def write_mvtec(folder, rng, *, side=20, counts=(("train/good", 12), ("test/good", 4), ("test/crack", 3))):
    """A category in the layout of MVTec AD."""
    for part, number in counts:
        for i in range(number):
            image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            place = folder / part
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i:03d}.png")
            if not part.endswith("good"):
                mask = np.zeros((side, side), np.uint8)
                mask[:10, 5:15] = 255
                target = folder / part.replace("test", "ground_truth")
                target.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(target / f"{i:03d}_mask.png")
    return folder
