"""Tabular data sets, and the split of their normal instances that keeps the test honest.

Source: Niihori et al. (NeurIPS 2025), section 5.3 and appendix C.4. The paper is silent on where the covariance, the
threshold and the standardisation come from. Chosen here: of the normal instances one third serves to estimate these,
one third is the pool of training instances, one third is held out for testing, redrawn for every repetition.
"""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.knn.detection import METRICS, Metric, check_candidates, scores
from sigad.optional import needs

with needs("pipeline"):
    import pandas as pd

NUMERIC = "numeric"
Label = str | int | float | bool

_IDENTIFIER = re.compile(r"^([Uu]nnamed.*|[Ii]ndex|(.*[ _.-])?([Ii]d|ID)|.*[a-z]ID)$")
_LABEL = "is normal"  # the column of a saved table that holds Table.normal
_SCIPY_METRIC = dict(zip(METRICS, ("euclidean", "cityblock", "chebyshev"), strict=True))
# Held-out instances that a threshold is estimated on, at most: the level of a 0.9 quantile then has a standard error of
# 0.01.
_HELD_OUT = 1000


@dataclass(frozen=True)
class Table:
    """A data set of N instances with d numeric columns.

    Attributes
    ----------
    name : what the data set is called.
    x : (N, d) float64, in the units of the source; no missing or infinite values.
    normal : (N,) bool, False for anomalies.
    columns : the d column names.
    notes : what was left out on reading and why, one sentence each.
    """

    name: str
    x: NDArray[np.float64]
    normal: NDArray[np.bool_]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def save(self, path: str | Path) -> None:
        """Write the table as a parquet file with name and notes in its metadata."""
        frame = pd.DataFrame(self.x, columns=list(self.columns)).assign(**{_LABEL: self.normal})
        frame.attrs = {"name": self.name, "notes": list(self.notes)}
        frame.to_parquet(path, index=False)

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """Read a table that :meth:`save` wrote; raises MissingDataError when there is no such file."""
        if not Path(path).is_file():
            raise MissingDataError(f"there is no table at {path}: run the rule that prepares the data sets first")
        frame = pd.read_parquet(path)
        return cls(
            name=frame.attrs["name"],
            x=frame.drop(columns=_LABEL).to_numpy(np.float64),
            normal=frame[_LABEL].to_numpy(bool),
            columns=tuple(frame.columns.drop(_LABEL)),
            notes=tuple(frame.attrs["notes"]),
        )


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
    label = next((candidate for candidate in wanted_labels if candidate in frame), None)
    if label is None:
        raise ConfigurationError(
            f"data set {name!r} has no column {' or '.join(map(repr, wanted_labels))} to use as label; "
            f"its columns are: {existing}"
        )
    if isinstance(columns, str) and columns != NUMERIC:
        columns = [columns]
    if columns == NUMERIC:
        columns, left_out = _numeric_columns(frame.drop(columns=label))
        if left_out:
            notes.append(f"identifiers and indicators left out: {', '.join(left_out)}")
    unknown = [column for column in columns if column not in frame]
    if unknown:
        raise ConfigurationError(f"data set {name!r} has no column {', '.join(unknown)}; its columns are: {existing}")
    if label in columns:
        raise ConfigurationError(f"data set {name!r}: the label {label!r} cannot be one of the columns as well")
    textual = [column for column in columns if not pd.api.types.is_numeric_dtype(frame[column])]
    if textual:
        raise ConfigurationError(f"data set {name!r}: the columns {', '.join(textual)} are not numeric; leave them out")

    numbers = frame[list(columns)].astype(np.float64).replace([np.inf, -np.inf], np.nan)
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


def _numeric_columns(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Names of the numeric columns, and of those left out because they identify rows or are indicators."""
    kept, left_out = [], []
    for column in frame.select_dtypes("number"):
        values = frame[column]
        numbers_rows = len(values) > 2 and pd.api.types.is_integer_dtype(values) and (values.diff().iloc[1:] == 1).all()
        kind = left_out if numbers_rows or _IDENTIFIER.match(column) or values.nunique() == 2 else kept
        kind.append(column)
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


class Split(NamedTuple):
    """Row indices of the thirds of the normal instances, in random order."""

    estimation: NDArray[np.int64]
    pool: NDArray[np.int64]
    testing: NDArray[np.int64]


class Draw(NamedTuple):
    """One trial on a tabular data set; all instances are standardised with the estimation third.

    Attributes
    ----------
    x_test : (d,) the test instance.
    x_train : (n, d) the training instances, all normal.
    covariance : (d, d) of normal instances.
    theta : threshold of the anomaly score.
    row : row of the test instance in the table.
    """

    x_test: NDArray[np.float64]
    x_train: NDArray[np.float64]
    covariance: NDArray[np.float64]
    theta: float
    row: int


def split(table: Table, rng: np.random.Generator) -> Split:
    """Shuffle the normal instances and cut them into thirds: estimation, training pool, testing."""
    rows = rng.permutation(np.flatnonzero(table.normal))
    return Split(*np.array_split(rows, 3))


def training_size(table: Table, n: int) -> int:
    """Number of training instances of a trial: n, or what the thirds of the table allow if that is less.

    The reference set of the threshold has the same size and leaves at least as many instances held out.
    """
    normal = int(table.normal.sum())
    estimation, pool = -(-normal // 3), -(-(normal - 1) // 3)  # sizes of np.array_split
    return min(n, estimation // 2, pool)


def draw(
    table: Table,
    rng: np.random.Generator,
    *,
    n: int,
    candidates: int | Sequence[int],
    quantile: float,
    anomalous: bool,
    metric: Metric = "l2",
    diagonal: bool = False,
) -> Draw:
    """Draw one trial: training instances, a test instance, and covariance and threshold that do not depend on them.

    Mean, standard deviation and covariance come from the estimation third. Its first n instances are a reference
    training set, and the threshold is a quantile of the anomaly scores that the remaining ones (at most 1,000) obtain
    against it; the training instances come from the pool, a normal test instance from the testing third.

    Parameters
    ----------
    table : the data set.
    rng : source of randomness; the split is redrawn in every call.
    n : number of training instances, reduced to :func:`training_size`.
    candidates : number of neighbours k, or several.
    quantile : level of the threshold, in (0, 1).
    anomalous : draw the test instance from the anomalies (power) or from held-out normal instances (Type I).
    metric : distance of the score, ``"l2"``, ``"l1"`` or ``"linf"``.
    diagonal : keep the variances only.

    Raises
    ------
    InvalidInputError
        when the data set is too small for the candidates or for a covariance, has no anomaly although one is asked
        for, or when the covariance of the estimation third is singular; the message names the columns.
    """
    if not 0 < quantile < 1:
        raise InvalidInputError(f"quantile must lie between 0 and 1, not {quantile!r}")
    if metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    size, normal = training_size(table, n), int(table.normal.sum())
    if size < np.max(candidates):
        raise InvalidInputError(
            f"data set {table.name!r} is too small: a third of its {normal} normal instances allows {size} training "
            f"instances, fewer than k = {np.max(candidates)}; leave it out or choose smaller candidates"
        )
    candidates = check_candidates(candidates, size)
    anomalies = np.flatnonzero(~table.normal)
    if anomalous and not len(anomalies):
        raise InvalidInputError(f"data set {table.name!r} has no anomalies: check which label means normal")

    thirds = split(table, rng)
    train = table.x[rng.choice(thirds.pool, size, replace=False)]
    row = int(rng.choice(anomalies if anomalous else thirds.testing))

    estimation = table.x[thirds.estimation]
    mean, sd = estimation.mean(axis=0), estimation.std(axis=0, ddof=1)
    if not (sd > 0).all():
        constant = [column for column, s in zip(table.columns, sd, strict=True) if not s > 0]
        raise InvalidInputError(
            f"data set {table.name!r}: {', '.join(constant)} do not vary in a third of the normal instances; "
            "leave them out of `columns`"
        )
    standardised = (estimation - mean) / sd
    covariance = np.eye(len(sd)) if diagonal else np.atleast_2d(np.cov(standardised, rowvar=False))
    _check_regular(table, covariance, len(estimation))
    reference, held_out = standardised[:size], standardised[size : size + _HELD_OUT]
    score = scores(cdist(held_out, reference, _SCIPY_METRIC[metric]), candidates, len(sd)).max(axis=-1)
    theta = float(np.quantile(score, quantile, method="higher"))
    return Draw((table.x[row] - mean) / sd, (train - mean) / sd, covariance, theta, row)


def _check_regular(table: Table, covariance: NDArray, instances: int) -> None:
    values, vectors = np.linalg.eigh(covariance)
    if values[0] > 1e-10 * values[-1]:
        return
    if instances <= len(values):
        raise InvalidInputError(
            f"data set {table.name!r} is too small: {instances} instances to estimate a covariance of {len(values)} "
            f"columns ({', '.join(table.columns)}); choose fewer `columns` or a diagonal covariance"
        )
    null = np.abs(vectors[:, 0])
    dependent = [column for column, weight in zip(table.columns, null, strict=True) if weight > 1e-3 * null.max()]
    raise InvalidInputError(
        f"data set {table.name!r} has a singular covariance: {', '.join(dependent)} depend linearly on one another; "
        "leave one of them out of `columns`, or choose a diagonal covariance"
    )
