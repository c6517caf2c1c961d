"""MVTec AD: the official archives, checked and brought into one form.

Bergmann et al., *MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection*, CVPR 2019;
CC BY-NC-SA 4.0, not for commercial use. An archive ``<category>.tar.xz`` holds

    <category>/train/good/000.png ...            normal
    <category>/test/good/000.png ...             normal
    <category>/test/<defect>/000.png ...         anomalous, with
    <category>/ground_truth/<defect>/000_mask.png ...
"""

import logging
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sigad.data.files import download, record, refuse
from sigad.data.images import ImageSet, defect_shares
from sigad.data.pictures import read_picture
from sigad.data.stack import Series
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError, unknown

logger = logging.getLogger(__name__)

LICENCE = (
    "MVTec AD is licensed under CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): not for "
    "commercial use. Please cite Bergmann et al., CVPR 2019."
)


def folder_of(category: str, data_dir: str | Path) -> Path:
    """Where the unpacked images of a category lie: ``<data_dir>/mvtec_ad/<category>``."""
    return Path(data_dir) / "mvtec_ad" / category


def availability(name: str, entry: Mapping[str, Any], data_dir: str | Path) -> tuple[bool, str]:
    """Whether an image set can be had, without asking the network, and from where, or what to do."""
    if entry["source"] == "package":
        return True, "ships with scikit-image"
    category = entry.get("category") or name
    folder = folder_of(category, data_dir)
    if folder.is_dir():
        return True, f"folder {folder}"
    if entry.get("url"):
        return True, f"from {entry['url']}"
    return False, f"no address is given: set `images: {name}: url`, or put the images into {folder}"


def require_images(name: str, manifest: Mapping[str, Mapping[str, Any]], data_dir: str | Path) -> None:
    """Raise ConfigurationError for an image set that the manifest does not know, MissingDataError for one that is
    neither there nor has an address."""
    if name not in manifest:
        raise ConfigurationError(f"dataset: {unknown('image set', name, manifest)}")
    available, reason = availability(name, manifest[name], data_dir)
    if not available:
        raise MissingDataError(f"the image set {name!r} cannot be had: {reason}")


def fetch(category: str, entry: Mapping[str, Any], data_dir: str | Path) -> Path:
    """Make the images of a category available, downloading and unpacking its archive if need be.

    A folder that is there (put there by hand, perhaps) is used as it is. Returns the folder.

    Raises
    ------
    MissingDataError
        when the archive cannot be downloaded.
    InvalidInputError
        when the archive has another digest than the manifest says, or cannot be unpacked.
    """
    folder = folder_of(category, data_dir)
    if folder.is_dir():
        return folder
    logger.info(LICENCE)
    if not entry.get("url"):
        raise MissingDataError(f"{category}: no address is given, and there is no folder {folder}")
    way_out = f"try again, correct `images: {category}` in config/datasets.yaml, or put the images into {folder}"
    archive = Path(data_dir) / "mvtec_ad" / Path(entry["url"]).name
    download(entry["url"], archive, sha256=entry.get("sha256"), way_out=way_out)
    partial = folder.with_name(f".{category}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InvalidInputError(f"{archive} cannot be unpacked ({error}): remove it and {way_out}") from error
    inner = partial / category
    if not inner.is_dir():
        shutil.rmtree(partial)
        raise InvalidInputError(f"{archive} does not hold a folder {category}: {way_out}")
    inner.rename(folder)
    record(folder)
    shutil.rmtree(partial)
    return folder


def read_category(folder: str | Path, *, patch: int = 30, counts: Mapping[str, int] | None = None) -> ImageSet:
    """Read the images of a category, checking all files first.

    Parameters
    ----------
    folder : ``.../<category>``, with the layout above.
    patch : side of the patches; images are cut at their original resolution, and a remainder at the right and lower
        edge that fills no patch is left out.
    counts : how many images there have to be: ``train`` and ``good`` normal ones, and ``defective`` ones; None for any.

    Raises
    ------
    InvalidInputError
        that names every file that is missing, cannot be read, or has another size than the others, and every part that
        does not have as many images as it should.
    """
    from PIL import Image

    folder = Path(folder)
    wrong, found, masks = [], [], {}
    for part in ("train/good", "test/good"):
        files = sorted((folder / part).glob("*.png"))
        if not files:
            wrong.append(f"{folder / part}: no images")
        found += [(file, True) for file in files]
    defects = sorted(d for d in (folder / "test").glob("*") if d.is_dir() and d.name != "good")
    for defect in defects:
        for file in sorted(defect.glob("*.png")):
            found.append((file, False))
            masks[file] = folder / "ground_truth" / defect.name / f"{file.stem}_mask.png"
            if not masks[file].is_file():
                wrong.append(f"{masks[file]}: missing")
    parts = [file.relative_to(folder).parts[:2] for file, _ in found]
    there = {"train": parts.count(("train", "good")), "good": parts.count(("test", "good")), "defective": len(masks)}
    for part, expected in (counts or {}).items():
        if there[part] != expected:
            wrong.append(f"{there[part]} images of the part {part!r}, which should have {expected}")
    arrays, sizes = {}, {}
    for file in [*(file for file, _ in found), *(mask for mask in masks.values() if mask.is_file())]:
        try:
            with Image.open(file) as image:
                gray = file.name.endswith("_mask.png") or image.mode in ("L", "I", "1")
                array = np.asarray(image.convert("L" if gray else "RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            wrong.append(f"{file}: {error}")
            continue
        arrays[file] = array
        sizes.setdefault(array.shape[:2], []).append(file)
    if len(sizes) > 1:
        usual = max(sizes, key=lambda size: len(sizes[size]))
        for size in sizes.keys() - {usual}:
            wrong += [f"{file}: {size[1]}x{size[0]} pixels, not {usual[1]}x{usual[0]}" for file in sizes[size]]
    way_out = f"remove {folder} to fetch them again, or correct `counts` in config/datasets.yaml for images of yours"
    refuse(wrong, folder, way_out)
    colour = any(arrays[file].ndim == 3 for file, _ in found)
    height, width = next(iter(sizes))
    images = np.empty((len(found), 3 if colour else 1, height, width), np.uint8)
    defect = np.zeros((len(found), height // patch, width // patch), np.float32)
    for i, (file, _) in enumerate(found):
        array = arrays.pop(file)
        images[i] = np.moveaxis(array, -1, 0) if array.ndim == 3 else array
        if file in masks:
            defect[i] = defect_shares(arrays.pop(masks[file]) > 0, patch)
    names = tuple(str(file.relative_to(folder)) for file, _ in found)
    return ImageSet(folder.name, images, np.array([normal for _, normal in found]), defect, patch, names)


def read_pictures(folder: str | Path) -> Iterator[Series]:
    """The whole images of a category, or of any folder with the layout above, for localization: each a series of one.

    Images of ``train/good`` are for everything but testing, all others for testing. PNG of any mode, TIFF, JPEG, ...;
    a mask has the name of its image with ``_mask.png``.

    Raises
    ------
    MissingDataError
        for a folder without normal training images.
    InvalidInputError
        after the last image, for every missing mask, and every file that cannot be read or has another size than the
        first; what is wrong is not among the images.
    """
    folder = Path(folder)
    files = {
        file: part.name
        for part in [folder / "train" / "good", *sorted(folder.glob("test/*/"))]
        for file in sorted(part.glob("*"))
        if file.suffix.lower() in _PICTURES
    }
    masks = {
        file: folder / "ground_truth" / defect / f"{file.stem}_mask.png"
        for file, defect in files.items()
        if defect != "good"
    }
    if not any(file.parent == folder / "train" / "good" for file in files):
        raise MissingDataError(f"{folder / 'train' / 'good'} holds no images")
    missing = {mask for mask in masks.values() if not mask.is_file()}
    wrong, usual = [f"{mask}: missing" for mask in sorted(missing)], None
    for file in files:
        try:
            image = read_picture(file)
            known = file in masks and masks[file] not in missing
            mask = read_picture(masks[file]) if known else np.zeros_like(image)
        except InvalidInputError as error:
            wrong.append(str(error))
            continue
        usual = usual or image.shape[1:]
        if image.shape[1:] != usual or mask.shape[1:] != usual:
            sizes = " and ".join(f"{array.shape[2]}x{array.shape[1]}" for array in (image, mask))
            wrong.append(f"{file} and its mask: {sizes} pixels, others have {usual[1]}x{usual[0]}")
        elif known or file not in masks:
            name = str(file.relative_to(folder))
            yield Series(name, [name], image[None], mask.max(0)[None] > 0, testing=file.parent.parent.name == "test")
    refuse(wrong, folder)


_PICTURES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"}
