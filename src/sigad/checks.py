"""What enters from outside: arrays and numbers, checked once and before anything is computed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError


def real_array(value: Any, name: str, *, infinite: bool = False, missing: bool = False) -> NDArray[np.float64]:
    """A finite real array in double precision, from anything that numpy or torch takes for one.

    Raises InvalidInputError, naming the argument, for masked arrays (whose mask would be ignored), complex numbers
    (whose imaginary part would be lost), what is no array of numbers, and values that are not finite; with
    ``infinite`` or ``missing``, infinite values or NaN are let through.
    """
    if value is None:
        raise InvalidInputError(f"{name} must be given as numbers, not None")
    if hasattr(value, "toarray"):
        raise InvalidInputError(f"{name} is a sparse matrix: pass {name}.toarray()")
    if np.ma.isMaskedArray(value) and np.ma.is_masked(value):
        raise InvalidInputError(f"{name} is a masked array: fill or impute the masked values first")
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double().numpy() if value.is_floating_point() else value.numpy()
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} must be an array of numbers, all rows of one length: {error}") from error
    if array.dtype.kind not in "buif":
        raise InvalidInputError(f"{name} must hold real numbers, not values of type {array.dtype}")
    array = array.astype(np.float64, copy=False)
    if not (np.isfinite(array) | (infinite & np.isinf(array)) | (missing & np.isnan(array))).all():
        raise InvalidInputError(f"{name} must be finite: remove or impute NaN and infinite values first")
    return array


def labels(value: Any, name: str, size: int) -> NDArray:
    """Whole numbers or text that say to which group each of ``size`` instances belongs, (size,)."""
    array = np.asarray(value)
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)  # a column of a data frame
    if array.shape != (size,) or array.dtype.kind not in "iuU" or np.ma.is_masked(value):
        raise InvalidInputError(
            f"{name} must be whole numbers or text, one for each of the {size} instances, not {array.dtype} of shape "
            f"{array.shape}"
        )
    return array


def real_number(value: Any, name: str) -> float:
    """A finite number; raises InvalidInputError, naming the argument, for anything else."""
    array = real_array(value, name)
    if array.ndim:
        raise InvalidInputError(f"{name} must be one number, not an array of shape {array.shape}")
    return float(array)


def whole_number(value: Any, name: str, *, least: int) -> int:
    """A whole number; raises InvalidInputError, naming the argument, for anything else, or if it is too small."""
    number = real_number(value, name)
    if number != int(number) or number < least:
        raise InvalidInputError(f"{name} must be a whole number, at least {least}, not {value!r}")
    return int(number)


def share(value: Any, name: str) -> float:
    """A number between 0 and 1, neither of which it may be; raises InvalidInputError, naming the argument."""
    number = real_number(value, name)
    if not 0 < number < 1:
        raise InvalidInputError(f"{name} must lie between 0 and 1, not {value}")
    return number


def generator(value: Any, name: str = "rng") -> np.random.Generator:
    """A NumPy generator; raises InvalidInputError, naming the argument, for seeds and other generators."""
    if not isinstance(value, np.random.Generator):
        raise InvalidInputError(f"{name} must be a generator, such as numpy.random.default_rng(0), not {value!r}")
    return value


def flag(value: Any, name: str) -> bool:
    """True or False; raises InvalidInputError, naming the argument, for anything else, which would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(f"{name} must be True or False, not {value!r}")
    return bool(value)
