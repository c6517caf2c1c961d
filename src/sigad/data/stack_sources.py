"""Where stacks of whole images come from: entries of the section ``stacks`` of ``config/datasets.yaml``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sigad.data import brats, lgg, mvtec
from sigad.data.sources import has_kaggle_credentials
from sigad.data.stack import SHARES, ImageStack, Preparation, Series, prepare
from sigad.data.textures import read_texture
from sigad.errors import ConfigurationError, MissingDataError

Entry = Mapping[str, Any]
SOURCES = ("package", "mvtec", "lgg", "brats")
_SCANS: dict[str, Any] = {"lgg": lgg, "brats": brats}


def availability(name: str, entry: Entry, data_dir: str | Path, images: Mapping[str, Entry]) -> tuple[bool, str]:
    """Whether the images of a stack can be had, without asking the network, and from where, or what to do.

    ``images`` is the section of that name, which knows where the categories of MVTec AD come from.
    """
    source, folder = entry["source"], entry.get("folder")
    if source == "package":
        return True, "ships with scikit-image"
    if folder:
        there = Path(folder).expanduser().exists()
        return there, f"folder {folder}" if there else f"there is no {folder}: correct `stacks: {name}: folder`"
    if source == "mvtec":
        if name not in images:
            return False, f"set `stacks: {name}: folder`, or give `images: {name}`"
        return mvtec.availability(name, images[name], data_dir)
    place = _SCANS[source].folder_of(data_dir)
    if place.is_dir():
        return True, f"folder {place}"
    if source == "lgg":
        return has_kaggle_credentials(), f"Kaggle, {lgg.SLUG}, with credentials, or by hand to {place}"
    try:
        brats.require_token(data_dir)
    except MissingDataError as error:
        return False, str(error)
    return True, f"from Synapse, {brats.SYNAPSE_ID}"


def folder_of(name: str, entry: Entry, data_dir: str | Path) -> Path | None:
    """Where the images of a stack lie or are downloaded to; None for those that ship inside a package."""
    source = entry["source"]
    if source == "package":
        return None
    if entry.get("folder"):
        return Path(entry["folder"]).expanduser()
    return mvtec.folder_of(name, data_dir) if source == "mvtec" else _SCANS[source].folder_of(data_dir)


def fetch_scans(source: str, data_dir: str | Path) -> Path:
    """Download the scans of a source, ``"lgg"`` or ``"brats"``, unless they are there: the folder that holds them."""
    return _SCANS[source].fetch(data_dir)


def read(name: str, entry: Entry, data_dir: str | Path) -> Iterator[Series]:
    """The series of a stack, which has been downloaded."""
    source, place = entry["source"], folder_of(name, entry, data_dir)
    if place is None:
        return read_texture(name, side=entry.get("side", 32))
    if source == "mvtec":
        return mvtec.read_pictures(place)
    if source == "lgg":
        return lgg.read_npz(place) if place.suffix == ".npz" else lgg.read_folder(place)
    if source == "brats":
        return brats.read_folder(place)
    raise ConfigurationError(f"stacks: {name}: source must be one of {', '.join(SOURCES)}, not {source!r}")


def make(name: str, entry: Entry, data_dir: str | Path, *, size: int, seed: int) -> ImageStack:
    """Read and prepare a stack as its entry says."""
    how = dict(entry.get("prepare") or {})
    if "levels" in how:
        how["levels"] = tuple(how["levels"])
    try:
        preparation = Preparation(size=size, **how)
    except TypeError as error:
        raise ConfigurationError(f"stacks: {name}: prepare: {error}") from error
    series = read(name, entry, data_dir)
    return prepare(series, preparation, name=name, seed=seed, shares=entry.get("shares") or SHARES)
