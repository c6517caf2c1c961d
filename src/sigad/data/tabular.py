"""Tabular data sets, read from files and packages."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigad.data.table import Table
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.optional import needs

with needs("pipeline"):
    import pandas as pd

NUMERIC = "numeric"
Label = str | int | float | bool

_IDENTIFIER = re.compile(r"^([Uu]nnamed.*|[Ii]ndex|(.*[ _.-])?([Ii]d|ID)|.*[a-z]ID)$")
# Squares of larger values, and sums of as many of them as a table has, leave the range of numbers.
_LARGEST = 1e150
# A column with a smaller share of text is meant to be one of numbers.
_MOSTLY = 0.5


def read_table(
    path: str | Path,
    *,
    columns: str | Sequence[str] = NUMERIC,
    label: str | Sequence[str],
    normal: Label | Sequence[Label],
    separator: str | None = None,
    name: str | None = None,
) -> Table:
    """Read a data set from a CSV file with a header.

    Parameters
    ----------
    path : the file.
    columns, label, normal : as in :func:`make_table`.
    separator : between fields; None for the one of comma, semicolon, tab and bar that is most frequent in the header.
    name : what to call the data set; None for the stem of the file name.

    Raises
    ------
    MissingDataError
        when there is no such file.
    InvalidInputError
        when the file is not a table, or nothing is left of it.
    ConfigurationError
        for column names or label values that do not exist; the message lists those that do.
    """
    if isinstance(path, pd.DataFrame):
        raise InvalidInputError("read_table takes the path of a CSV file: pass a DataFrame to make_table")
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"there is no file {path}: put the CSV there, or correct the path in the configuration")
    try:
        frame = pd.read_csv(path, sep=separator or _separator(path))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{path} cannot be read as a CSV file with a header ({error}): set its `separator` in the configuration, "
            "or save it as comma-separated UTF-8 text"
        ) from error
    return make_table(name or path.stem, frame, columns=columns, label=label, normal=normal)


def read_packaged(
    module: str,
    *,
    columns: str | Sequence[str] = NUMERIC,
    label: str | Sequence[str],
    normal: Label | Sequence[Label],
    name: str | None = None,
) -> Table:
    """Read a data set that ships inside a Python package.

    Parameters
    ----------
    module : a loader of scikit-learn such as ``"sklearn.datasets.load_wine"``, whose classes become the column
        ``target`` by name, or a data set of statsmodels such as ``"statsmodels.datasets.fair"``.
    columns, label, normal : as in :func:`make_table`.
    name : what to call the data set; None for the last part of ``module``.

    Raises
    ------
    MissingDataError
        when the package is not installed.
    ConfigurationError
        when ``module`` is not a data set of this kind, or as :func:`make_table`.
    """
    parent, _, last = module.rpartition(".")
    try:
        source = getattr(importlib.import_module(parent), last)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise MissingDataError(f"the data set {module} needs the package {package}: install it") from error
    except (AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{module!r} is not a data set: name one like sklearn.datasets.load_wine or statsmodels.datasets.fair"
        ) from error
    if hasattr(source, "load_pandas"):
        frame = source.load_pandas().data
    elif callable(source):
        bunch = source(as_frame=True)
        frame = bunch.data.assign(target=np.asarray(bunch.target_names)[bunch.target])
    else:
        raise ConfigurationError(
            f"{module!r} is not a data set: name one like sklearn.datasets.load_wine or statsmodels.datasets.fair"
        )
    return make_table(name or last.removeprefix("load_"), frame, columns=columns, label=label, normal=normal)


def make_table(
    name: str,
    frame: pd.DataFrame,
    *,
    columns: str | Sequence[str] = NUMERIC,
    label: str | Sequence[str],
    normal: Label | Sequence[Label],
) -> Table:
    """Select the numeric columns of a data frame and say which of its rows are normal.

    Rows with missing or infinite values are dropped, and so are columns that are constant among the normal instances;
    the table's notes count and name them.

    Parameters
    ----------
    name : what the data set is called.
    frame : one row per instance.
    columns : ``"numeric"`` for every numeric column except the label, row identifiers (by name, or because they number
        the rows) and indicators (at most two values), or a list of names.
    label : column that says what is normal; of several names the first that exists, for files whose header varies.
    normal : value of the label that means normal, or several; every other value is an anomaly.

    Raises
    ------
    ConfigurationError
        for column names or label values that do not exist (the message lists those that do), or columns that are not
        numeric.
    InvalidInputError
        when there are fewer than two normal instances or two columns that vary.
    """
    notes = []
    frame = frame.rename(columns=lambda column: str(column).strip())
    existing = ", ".join(frame.columns)
    wanted_labels = [label] if isinstance(label, str) else list(label)
    found = next((candidate for candidate in wanted_labels if candidate in frame), None)
    if found is None:
        raise ConfigurationError(
            f"data set {name!r} has no column {' or '.join(map(repr, wanted_labels))} to use as label; "
            f"its columns are: {existing}"
        )
    label = found
    if isinstance(columns, str) and columns != NUMERIC:
        columns = [columns]
    if columns == NUMERIC:
        columns, left_out = _numeric_columns(name, frame.drop(columns=label))
        notes += [f"{reason} left out: {', '.join(names)}" for reason, names in left_out.items()]
    unknown = [column for column in columns if column not in frame]
    if unknown:
        raise ConfigurationError(f"data set {name!r} has no column {', '.join(unknown)}; its columns are: {existing}")
    if label in columns:
        raise ConfigurationError(f"data set {name!r}: the label {label!r} cannot be one of the columns as well")
    textual = [column for column in columns if not pd.api.types.is_numeric_dtype(frame[column])]
    if textual:
        raise ConfigurationError(f"data set {name!r}: the columns {', '.join(textual)} are not numeric; leave them out")

    numbers = frame[list(columns)].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    huge = numbers.columns[(numbers.abs() > _LARGEST).any()]
    if len(huge):
        raise InvalidInputError(
            f"data set {name!r}: {', '.join(huge)} holds values beyond {_LARGEST:g}, whose squares overflow: "
            "correct them, change the unit of the column, or leave it out of `columns`"
        )
    complete = (numbers.notna().all(axis=1) & frame[label].notna()).to_numpy()
    if not complete.all():
        notes.append(f"{(~complete).sum()} of {len(frame)} rows dropped for missing values")
    numbers, labels = numbers[complete], frame.loc[complete, label]
    is_normal = _is_one_of(name, labels, normal)
    if is_normal.sum() < 2:
        raise InvalidInputError(
            f"data set {name!r} has {is_normal.sum()} normal instances without missing values: at least 2 are needed"
        )
    varies = (numbers[is_normal].nunique() > 1).to_numpy()
    if not varies.all():
        notes.append(f"columns constant among normal instances dropped: {', '.join(numbers.columns[~varies])}")
        numbers = numbers.loc[:, varies]
    if numbers.shape[1] < 2:
        raise InvalidInputError(
            f"data set {name!r} has {numbers.shape[1]} numeric columns that vary among normal instances: at least 2 "
            f"are needed; name them in `columns`, out of: {existing}"
        )
    repeated = int(numbers[is_normal].duplicated().sum())
    if repeated:
        notes.append(f"{repeated} of {is_normal.sum()} normal instances repeat another one")
    return Table(name, numbers.to_numpy(), is_normal, tuple(numbers.columns), tuple(notes))


def _separator(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return max(",;\t|", key=file.readline().count)


def _numeric_columns(name: str, frame: pd.DataFrame) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the numeric columns, and of all others by the reason why they are left out.

    Raises InvalidInputError for a column of numbers with some text in it, which would vanish by one typing error.
    """
    kept, left_out = [], {}
    for column in frame:
        values = frame[column]
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            text = values.dropna().astype(str)
            wrong = text[pd.to_numeric(text, errors="coerce").isna()]
            if len(text) and 0 < len(wrong) < _MOSTLY * len(text):
                shown = ", ".join(map(repr, wrong.unique()[:5]))
                raise InvalidInputError(
                    f"data set {name!r}: the column {column!r} holds numbers but for {len(wrong)} of {len(text)} cells "
                    f"({shown}): correct these, or name the columns that you want in `columns`"
                )
            reason = "columns that are not numeric"
        elif _IDENTIFIER.match(column) or (
            len(values) > 2 and pd.api.types.is_integer_dtype(values) and (values.diff().iloc[1:] == 1).all()
        ):
            reason = "identifiers"
        elif values.nunique() == 2:
            reason = "indicators"
        else:
            kept.append(column)
            continue
        left_out.setdefault(reason, []).append(column)
    return kept, left_out


def _is_one_of(name: str, labels: pd.Series, normal: Label | Sequence[Label]) -> NDArray[np.bool_]:
    """Which labels mean normal. Numbers compare as numbers, so that 0 finds 0.0 and False; text compares as text."""
    wanted = [normal] if isinstance(normal, str | int | float) else list(normal)
    if pd.api.types.is_numeric_dtype(labels):
        found = labels.isin([value for value in wanted if not isinstance(value, str)])
    else:
        found = labels.astype(str).isin([str(value) for value in wanted])
    if not found.any():
        values = [str(value) for value in labels.unique()[:12]]
        raise ConfigurationError(
            f"data set {name!r}: no row has a label {' or '.join(map(repr, wanted))} for normal; "
            f"the values of {labels.name!r} are: {', '.join(values)}{', ...' if labels.nunique() > 12 else ''}"
        )
    return found.to_numpy(bool)
