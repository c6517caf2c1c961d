"""TCGA-LGG: FLAIR slices of 110 patients with lower-grade glioma, with masks of the tumour.

Buda, Saha & Mazurowski, *Association of genomic subtypes of lower-grade gliomas with shape features automatically
extracted by a deep learning algorithm*, Computers in Biology and Medicine 109 (2019). On Kaggle as
``mateuszbuda/lgg-mri-segmentation``; CC BY-NC-SA 4.0. The folder ``kaggle_3m`` holds, for each patient,

    TCGA_<institution>_<patient>_<date>/TCGA_..._<slice>.tif         three channels, the second one FLAIR
    TCGA_<institution>_<patient>_<date>/TCGA_..._<slice>_mask.tif

The brains are not stripped of their skulls, and normal slices come from patients with a tumour elsewhere.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sigad.data.files import record, refuse
from sigad.data.pictures import read_picture
from sigad.data.sources import has_kaggle_credentials
from sigad.data.stack import Series
from sigad.errors import InvalidInputError, MissingDataError, StorageError
from sigad.optional import needs

logger = logging.getLogger(__name__)

SLUG = "mateuszbuda/lgg-mri-segmentation"
FLAIR = 1
_SLICE = re.compile(r"(?P<patient>TCGA_\w+?_\w+?_\d+)_(?P<slice>\d+)\.tif$")


def folder_of(data_dir: str | Path) -> Path:
    """Where the patients' folders lie: ``<data_dir>/lgg/kaggle_3m``."""
    return Path(data_dir) / "lgg" / "kaggle_3m"


def fetch(data_dir: str | Path) -> Path:
    """Make the set available: the folder if it is there, else a download from Kaggle (about 1 GB), copied to it.

    Raises MissingDataError, with what to do by hand, when it cannot be had, and StorageError when it cannot be written.
    """
    folder = folder_of(data_dir)
    if folder.is_dir():
        return folder
    by_hand = f"download https://www.kaggle.com/datasets/{SLUG} by hand and move its folder kaggle_3m to {folder}"
    if not has_kaggle_credentials():
        raise MissingDataError(
            f"TCGA-LGG is not at {folder}, and there are no Kaggle credentials: set KAGGLE_API_TOKEN (or "
            f"KAGGLE_USERNAME and KAGGLE_KEY), or {by_hand}"
        )
    logger.info("TCGA-LGG is licensed under CC BY-NC-SA 4.0: not for commercial use. Please cite Buda et al. 2019.")
    with needs("pipeline"):
        import kagglehub
    try:
        found = Path(kagglehub.dataset_download(SLUG))
    except Exception as error:  # kagglehub's own, HTTP and credential errors have no common base
        raise MissingDataError(f"{SLUG} could not be downloaded ({error}): {by_hand}") from error
    inside = next((p for p in sorted(found.rglob("kaggle_3m")) if any(p.glob("TCGA_*"))), None)
    if inside is None:
        raise MissingDataError(f"{SLUG} holds no folder kaggle_3m with patients: {by_hand}")
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(inside, partial)
    except OSError as error:  # of shutil too, which lists every file
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageError(f"{folder} could not be written ({error}): make room, or choose another folder") from error
    partial.rename(folder)
    record(folder)
    return folder


def read_folder(folder: str | Path) -> Iterator[Series]:
    """The patients of a folder in the layout of ``kaggle_3m``, one after the other, slices from bottom to top.

    Raises
    ------
    InvalidInputError
        after the last patient, for every slice without a mask or with a name that is not understood, and every file
        that could not be read or has another size than the patient's others. Their patients are left out.
    MissingDataError
        for a folder without patients.
    """
    folder = Path(folder)
    patients: dict[str, dict[int, Path]] = {}
    wrong, spoilt = [], set()
    for file in sorted(folder.glob("TCGA_*/*.tif")):
        if file.stem.endswith("_mask"):
            continue
        match = _SLICE.search(file.name)
        if match is None:
            wrong.append(f"{file}: not a name like TCGA_CS_4941_19960909_12.tif")
        elif not _mask(file).is_file():
            wrong.append(f"{_mask(file)}: missing")
            spoilt.add(match["patient"])
        else:
            patients.setdefault(match["patient"], {})[int(match["slice"])] = file
    if not patients:
        refuse(wrong, folder)
        raise MissingDataError(f"{folder} holds no slices TCGA_.../TCGA_..._<slice>.tif: is it the folder kaggle_3m?")
    for patient, slices in patients.items():
        files = [slices[number] for number in sorted(slices)]
        images, masks = [], []
        for file in files:
            try:
                image, mask = read_picture(file), read_picture(_mask(file))
            except InvalidInputError as error:
                wrong.append(str(error))
                spoilt.add(patient)
                continue
            if image.shape[1:] != mask.shape[1:] or (images and images[0].shape != image[:1].shape):
                wrong.append(f"{file}: {image.shape[1:]} pixels, not those of its mask or of the patient's first slice")
                spoilt.add(patient)
                continue
            images.append(image[FLAIR : FLAIR + 1] if len(image) > 1 else image)
            masks.append(mask.max(0) > 127)
        if patient not in spoilt:
            yield Series(patient, [file.stem for file in files], np.stack(images), np.stack(masks))
    refuse(wrong, folder)


def read_npz(path: str | Path) -> Iterator[Series]:
    """The patients of a file with ``flair`` (N, H, W), ``mask`` packed along its last axis, ``patient`` and ``slice``
    (N,): a smaller form of the set, slices from bottom to top."""
    try:
        with np.load(path, allow_pickle=False) as file:
            flair, bits, patient, number = (file[key] for key in ("flair", "mask", "patient", "slice"))
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no file {path}") from error
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInputError(f"{path} is not a file of FLAIR slices: {error}") from error
    masks = np.unpackbits(bits, axis=-1, count=flair.shape[-1]) > 0
    for name in dict.fromkeys(patient.tolist()):
        rows = np.flatnonzero(patient == name)
        rows = rows[np.argsort(number[rows])]
        yield Series(name, [f"{name}_{number[i]}" for i in rows], flair[rows][:, None], masks[rows])


def _mask(file: Path) -> Path:
    return file.with_name(f"{file.stem}_mask.tif")
