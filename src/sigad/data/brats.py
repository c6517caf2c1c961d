"""Volumes of brains with tumours, as BraTS has them: a FLAIR volume and a segmentation per examination, in NIfTI.

BraTS 2023 (adult glioma): Baid et al., arXiv 2107.02314; on Synapse, for registered participants. The volumes are
stripped of their skulls and lie on one grid of 1 mm. The layouts that are understood, each below one folder for an
examination with any name:

    BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz and ...-seg.nii.gz               2023
    BraTS2021_00000/BraTS2021_00000_flair.nii.gz and ..._seg.nii.gz                     2017 to 2021
    brats_2013_pat0001_1/Flair_subtrMeanDivStd.nii.gz, OTMultiClass.nii.gz, brainmask.nii.gz     2013, prepared

and any volumes of yours that are named like one of these.
"""

import logging
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.data.files import record, refuse
from sigad.data.stack import Series
from sigad.errors import InvalidInputError, MissingDataError
from sigad.optional import needs

logger = logging.getLogger(__name__)

SYNAPSE_ID = "syn51514132"
ARCHIVE = "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData"
TOKEN = "SYNAPSE_AUTH_TOKEN"

_FLAIR = re.compile(r"(?:.*[-_](?:t2f|flair)|flair.*)\.nii(?:\.gz)?$", re.IGNORECASE)
_LABELS = re.compile(r"(?:.*[-_]seg|OTMultiClass)\.nii(?:\.gz)?$", re.IGNORECASE)
_BRAIN = re.compile(r"(?:.*[-_])?brain_?mask\.nii(?:\.gz)?$", re.IGNORECASE)
_SAME_GRID = 1e-2
"""Millimetres by which the grids of volumes of one examination may differ."""


def folder_of(data_dir: str | Path) -> Path:
    """Where the folders of the examinations lie: ``<data_dir>/brats/<archive>``."""
    return Path(data_dir) / "brats" / ARCHIVE


def fetch(data_dir: str | Path, *, synapse_id: str = SYNAPSE_ID) -> Path:
    """Make BraTS 2023 available: the folder if it is there, else a download from Synapse (about 20 GB).

    The token is read from the environment variable SYNAPSE_AUTH_TOKEN and kept nowhere.

    Raises
    ------
    MissingDataError
        with what to do by hand, when there is no token or the download fails.
    MissingPackageError
        when there is a token, but synapseclient is not installed.
    InvalidInputError
        when the archive cannot be unpacked.
    """
    folder = folder_of(data_dir)
    if folder.is_dir():
        return folder
    token, by_hand = require_token(data_dir, synapse_id=synapse_id)
    with needs("brats"):
        import synapseclient
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        synapse = synapseclient.Synapse(silent=True)
        synapse.login(authToken=token)
        archive = Path(synapse.get(synapse_id, downloadLocation=str(folder.parent)).path)
    except Exception as error:  # synapseclient's own, HTTP and credential errors have no common base
        raise MissingDataError(f"{synapse_id} could not be downloaded from Synapse ({error}): {by_hand}") from error
    partial = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(partial)
    except (zipfile.BadZipFile, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InvalidInputError(
            f"{archive} cannot be unpacked ({error}): remove it and try again, or {by_hand}"
        ) from error
    inner = partial / ARCHIVE
    (inner if inner.is_dir() else partial).rename(folder)
    shutil.rmtree(partial, ignore_errors=True)
    record(folder)
    return folder


def require_token(data_dir: str | Path, *, synapse_id: str = SYNAPSE_ID) -> tuple[str, str]:
    """The token of the environment, and what to do by hand; raises MissingDataError where there is none."""
    folder = folder_of(data_dir)
    by_hand = (
        "register for the BraTS 2023 challenge at https://www.synapse.org/brats2023 and accept its terms; then either "
        f"make a personal access token with the scopes view and download and set {TOKEN}, or download {ARCHIVE}.zip "
        f"({synapse_id}) by hand and unpack it so that there is {folder}/BraTS-GLI-00000-000"
    )
    token = os.environ.get(TOKEN)
    if not token:
        raise MissingDataError(f"BraTS 2023 is not at {folder}, and {TOKEN} is not set: {by_hand}")
    return token, by_hand


class Examination(NamedTuple):
    """The files of one examination; ``patient`` is its name without the number of the examination (BraTS 2023)."""

    name: str
    patient: str
    flair: Path
    labels: Path
    brain: Path | None


def find(folder: str | Path) -> list[Examination]:
    """The examinations below a folder.

    Raises
    ------
    MissingDataError
        for a folder without any.
    InvalidInputError
        that names every one with several volumes of a kind, or without a segmentation.
    """
    found, wrong = _examinations(Path(folder))
    refuse(wrong, folder)
    return found


def _examinations(folder: Path) -> tuple[list[Examination], list[str]]:
    """The examinations below a folder, and what is wrong with others."""
    files = sorted(p for p in folder.rglob("*.nii*") if p.is_file() and p.name.endswith((".nii", ".nii.gz")))
    found, wrong = [], []
    for place in dict.fromkeys(file.parent for file in files):
        here = [file for file in files if file.parent == place]
        flair, labels, brain = ([f for f in here if kind.match(f.name)] for kind in (_FLAIR, _LABELS, _BRAIN))
        if not flair:
            continue
        if len(flair) > 1 or len(labels) > 1 or len(brain) > 1:
            wrong.append(f"{place}: several volumes of one kind; use one folder for an examination")
        elif not labels:
            wrong.append(f"{place}: no segmentation (a name that ends in -seg.nii.gz)")
        else:
            patient = re.sub(r"(BraTS-\w+-\d+)-\d+$", r"\1", place.name)
            found.append(Examination(place.name, patient, flair[0], labels[0], brain[0] if brain else None))
    twice = {e.name for e in found if sum(e.name == other.name for other in found) > 1}
    wrong += [f"{name}: several folders of this name" for name in sorted(twice)]
    if not found and not wrong:
        raise MissingDataError(f"{folder} holds no FLAIR volumes (names that end in -t2f.nii.gz or _flair.nii.gz)")
    return [one for one in found if one.name not in twice], wrong


def read_folder(folder: str | Path) -> Iterator[Series]:
    """The examinations below a folder, one after the other: axial slices from bottom to top, the front of the head
    above and the patient's left on the left, however the volume is stored.

    An anomaly is whatever has a label. The brain is the mask that comes with the volume, or what is not 0 in it.

    Raises
    ------
    InvalidInputError
        after the last one: for what :func:`find` names, and every volume that is truncated or otherwise broken, whose
        orientation is not known, or that is not on the same grid as its segmentation. These are left out.
    """
    examinations, wrong = _examinations(Path(folder))
    for one in examinations:
        faults: list[str] = []
        paths = (one.flair, one.labels, *([one.brain] if one.brain else []))
        volumes = [volume for path in paths if (volume := _volume(path, faults)) is not None]
        if not faults:
            grid = volumes[0][1]
            for path, (pixels, other) in zip(paths[1:], volumes[1:], strict=True):
                if pixels.shape != volumes[0][0].shape or not np.allclose(grid, other, atol=_SAME_GRID):
                    faults.append(f"{path}: not on the grid of {one.flair.name}")
        wrong += faults
        if faults:
            continue
        flair, labels, *brain = (pixels for pixels, _ in volumes)
        brain = brain[0] > 0.5 if brain else flair != 0
        names = [f"{one.name}_{k:03d}" for k in range(len(flair))]
        yield Series(one.patient, names, flair[:, None], labels > 0.5, brain)
    refuse(wrong, folder)


def _volume(path: Path, faults: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    """Axial slices (S, H, W) and the affine of the grid; None, with the fault added, for a broken volume."""
    with needs("pipeline"):
        import nibabel
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Any = nibabel.load(path)
            if not (image.header["sform_code"] or image.header["qform_code"]):
                faults.append(f"{path}: its orientation is not known (sform_code and qform_code are 0)")
                return None
            if image.ndim != 3:
                faults.append(f"{path}: {image.ndim} dimensions, not 3")
                return None
            image = nibabel.as_closest_canonical(image)
            pixels = image.get_fdata(dtype=np.float32, caching="unchanged")
    except Exception as error:  # nibabel, zlib and gzip each have errors of their own for broken files
        faults.append(f"{path}: {error or type(error).__name__}")
        return None
    if not np.isfinite(pixels).all():
        faults.append(f"{path}: values that are not finite")
        return None
    # From (right, front, top) to slices whose rows go from front to back.
    return np.ascontiguousarray(pixels.transpose(2, 1, 0)[:, ::-1]), image.affine
