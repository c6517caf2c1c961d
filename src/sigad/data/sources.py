"""Where data sets come from: packages, files of the user, downloads, Kaggle; and which of them can be had.

A data set is an entry of the manifest ``config/datasets.yaml``: a mapping that ``config/schemas/datasets.schema.yaml``
describes. A downloaded set, or one put there by hand, lies at ``<data_dir>/tabular/<name>.csv``.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from sigad.data.files import check_digest, download, record, write_whole
from sigad.data.table import Table
from sigad.errors import ConfigurationError, MissingDataError, unknown
from sigad.optional import needs

Entry = Mapping[str, Any]
SOURCES = ("package", "kaggle", "csv", "url")


def local_path(name: str, data_dir: str | Path) -> Path:
    """Where the file of a data set lies once it is there: ``<data_dir>/tabular/<name>.csv``."""
    return Path(data_dir) / "tabular" / f"{name}.csv"


def has_kaggle_credentials() -> bool:
    """Whether kagglehub would find credentials, in the environment or in the user's Kaggle folder."""
    folder = Path.home() / ".kaggle"
    return bool(
        os.environ.get("KAGGLE_API_TOKEN")
        or (os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"))
        or (Path(os.environ.get("KAGGLE_CONFIG_DIR", folder)) / "kaggle.json").is_file()
        or any((folder / token).is_file() for token in ("access_token", "access_token.txt"))
    )


def availability(name: str, entry: Entry, data_dir: str | Path) -> tuple[bool, str]:
    """Whether a data set can be had, without asking the network.

    Parameters
    ----------
    name : of the data set, its key in the manifest.
    entry : its manifest entry.
    data_dir : folder of the project's data.

    Returns
    -------
    available : whether it is there, or can be fetched with the credentials at hand.
    reason : where it comes from; if it is not available, what to set or where to put the file.

    Raises
    ------
    ConfigurationError
        for an unknown source.
    """
    available, reason = _origin(name, entry, data_dir)
    absent = _absent(name, entry)
    if absent:
        reason += f"{'; but' if available else '; moreover'} what is normal is not known: set {' and '.join(absent)}"
    return available and not absent, reason


def enabled_datasets(manifest: Mapping[str, Entry], data_dir: str | Path) -> tuple[list[str], dict[str, str]]:
    """Which data sets of a manifest to use.

    ``enabled: true`` asks for a data set, ``auto`` (the default) takes it if it can be had, ``false`` leaves it out.

    Parameters
    ----------
    manifest : entries by name, the section ``tabular`` of the manifest.
    data_dir : folder of the project's data.

    Returns
    -------
    used : names, in the order of the manifest.
    left_out : reasons by name, each saying what to do to include the data set.

    Raises
    ------
    MissingDataError
        when data sets with ``enabled: true`` cannot be had; names all of them and what to do.
    ConfigurationError
        for an unknown source, or a value of ``enabled`` other than these.
    """
    used, left_out, missing = [], {}, {}
    for name, entry in manifest.items():
        enabled = entry.get("enabled", "auto")
        if enabled not in (True, False, "auto"):
            raise ConfigurationError(f"tabular: {name}: enabled must be auto, true or false, not {enabled!r}")
        if enabled is False:
            left_out[name] = f"switched off: set `tabular: {name}: enabled` to auto or true"
            continue
        available, reason = availability(name, entry, data_dir)
        if available:
            used.append(name)
        elif enabled is True:
            missing[name] = reason
        else:
            left_out[name] = reason
    if missing:
        raise MissingDataError(
            "data sets with `enabled: true` cannot be had (set `enabled: auto` to go on without them):\n"
            + "\n".join(f"  {name}: {reason}" for name, reason in missing.items())
        )
    return used, left_out


def require_table(name: str, manifest: Mapping[str, Entry], data_dir: str | Path) -> None:
    """Raise ConfigurationError for a data set that the manifest does not know, MissingDataError for one that cannot be
    had."""
    if name not in manifest:
        raise ConfigurationError(f"dataset: {unknown('data set', name, manifest)}")
    available, reason = availability(name, manifest[name], data_dir)
    if not available:
        raise MissingDataError(f"the data set {name!r} cannot be had: {reason}")


def fetch(name: str, entry: Entry, data_dir: str | Path) -> Path | None:
    """Make the file of a data set available, downloading it if need be.

    See :func:`sigad.data.files.download` for interrupted downloads and digests.

    Parameters
    ----------
    name, entry, data_dir : as in :func:`availability`.

    Returns
    -------
    The file; None for a data set that ships with a package, which has none.

    Raises
    ------
    MissingDataError
        when the data set cannot be had, or the download fails.
    InvalidInputError
        when the SHA-256 of the file is not that of the manifest; shows both.
    StorageError
        when what Kaggle has sent cannot be written.
    """
    there, reason = _origin(name, entry, data_dir)
    if not there:
        raise MissingDataError(f"data set {name!r} cannot be had: {reason}")
    if entry["source"] == "package":
        return None
    path = Path(entry["path"]).expanduser() if entry["source"] == "csv" else local_path(name, data_dir)
    if path.is_file():
        check_digest(path, entry.get("sha256"), _way_out(name, path))
        return path
    if entry.get("url"):
        return download(entry["url"], path, sha256=entry.get("sha256"), way_out=_way_out(name, path))
    return _download_from_kaggle(name, entry, path)


def load(name: str, entry: Entry, data_dir: str | Path) -> Table:
    """Fetch and read a data set; errors as :func:`fetch` and :func:`sigad.data.tabular.make_table`."""
    # Reading needs pandas, which laying out an experiment does not.
    from sigad.data.tabular import NUMERIC, read_packaged, read_table

    absent = _absent(name, entry)
    if absent:
        raise ConfigurationError(f"data set {name!r} does not say what is normal: set {' and '.join(absent)}")
    selection = dict(columns=entry.get("columns") or NUMERIC, label=entry["label"], normal=entry["normal"], name=name)
    path = fetch(name, entry, data_dir)
    if path is None:
        return read_packaged(entry["module"], **selection)
    return read_table(path, separator=entry.get("separator"), **selection)


def _absent(name: str, entry: Entry) -> list[str]:
    return [f"`tabular: {name}: {key}`" for key in ("label", "normal") if entry.get(key) is None]


def _origin(name: str, entry: Entry, data_dir: str | Path) -> tuple[bool, str]:
    """Whether the file or package of a data set can be had, and from where, or what to do about it."""
    source, key, local = entry.get("source"), f"tabular: {name}:", local_path(name, data_dir)
    if source not in SOURCES:
        raise ConfigurationError(f"{key} source must be one of {', '.join(SOURCES)}, not {source!r}")
    if source == "package":
        if not entry.get("module"):
            return False, f"no module is named: set `{key} module` to one like sklearn.datasets.load_wine"
        package = entry["module"].partition(".")[0]
        if importlib.util.find_spec(package) is None:
            return False, f"the package {package} is not installed: install it"
        return True, f"ships with {package}"
    if source == "csv":
        if not entry.get("path"):
            return False, f"no file is named: set `{key} path` to your CSV file"
        path = Path(entry["path"]).expanduser()
        return (True, f"file {path}") if path.is_file() else (False, f"there is no file {path}: correct `{key} path`")
    if local.is_file():
        return True, f"file {local}"
    if entry.get("url"):
        parts = urlparse(entry["url"])
        if parts.scheme not in ("http", "https", "file"):
            return False, f"the address {entry['url']} is neither http(s) nor file: correct `{key} url`"
        if parts.scheme == "file" and not Path(url2pathname(parts.path)).is_file():
            return False, f"there is no file at {entry['url']}: correct `{key} url`, or put the CSV at {local}"
        return True, f"from {entry['url']}"
    if source == "url":
        return False, f"no address is given: set `{key} url`, or put the CSV at {local}"
    if not entry.get("slug"):
        return False, f"its Kaggle name is not known: set `{key} slug` to owner/name, or put the CSV at {local}"
    if not has_kaggle_credentials():
        return False, (
            "no Kaggle credentials: set KAGGLE_API_TOKEN (or KAGGLE_USERNAME and KAGGLE_KEY), or save kaggle.json in "
            f"~/.kaggle, or download {entry['slug']} by hand and put the CSV at {local}"
        )
    return True, f"from Kaggle, {entry['slug']}"


def _download_from_kaggle(name: str, entry: Entry, path: Path) -> Path:
    with needs("pipeline"):
        import kagglehub

    handle = entry["slug"] + (f"/versions/{entry['version']}" if entry.get("version") else "")
    try:
        folder = Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub's own, HTTP and credential errors have no common base
        raise MissingDataError(
            f"data set {name!r} could not be downloaded from Kaggle as {handle} ({error}): check your credentials and "
            f"`tabular: {name}: slug`, accept the data set's terms on its Kaggle page, or put the CSV at {path}"
        ) from error
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*.csv"))}
    wanted = entry.get("file") or (next(iter(files)) if len(files) == 1 else None)
    if wanted not in files:
        raise ConfigurationError(
            f"data set {name!r}: set `tabular: {name}: file` to one of the CSV files of {handle}: {', '.join(files)}"
        )
    check_digest(files[wanted], entry.get("sha256"), _way_out(name, path), name=path.name)
    write_whole(path, files[wanted].read_bytes())
    record(path)
    return path


def _way_out(name: str, path: Path) -> str:
    return (
        f"try again, correct `tabular: {name}: url`, or put the CSV at {path}; if you trust a file with another "
        f"sha256, set `tabular: {name}: sha256` to it"
    )
