"""A detector of which nothing is known but its answers: run in batches, on arrays of the caller's kind, and checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sigad.checks import whole_number
from sigad.errors import DetectorError, InvalidInputError, SigadError

Detect = Callable[[Any], Any]
"""A batch of data (m, *shape), of the kind in which the data under test were given, -> selections (m, ...)."""

WORKSPACE = 64
"""A detector is taken to need so many times the memory of its input, until it runs out of memory."""


class BlackBox:
    """A detector whose answers are checked: one selection for each item, of the same shape and kind each time.

    Parameters
    ----------
    detect : batch (m, *shape) -> selections (m, ...), which are compared for equality: bool, integers, strings, floats.
    like : the data under test. Batches are arrays of its kind, precision and device; NumPy in double precision for
        everything but floating-point arrays and tensors.
    memory_budget : bytes for a batch and what the detector makes of it.

    Raises
    ------
    InvalidInputError
        for a detector that cannot be called, and a budget that is no number of bytes.
    """

    def __init__(self, detect: Detect, like: Any, *, memory_budget: int = 2**30):
        if not callable(detect):
            raise InvalidInputError(
                f"the detector must be a function of a batch, not {type(detect).__name__}; one of PyOD or scikit-learn "
                "becomes such a function by sigad.models.adapters.outliers.flags"
            )
        memory_budget = whole_number(memory_budget, "memory_budget", least=1)
        self.detect, self.like = detect, like
        item = np.shape(like) if not isinstance(like, torch.Tensor) else tuple(like.shape)
        self.batch = max(1, memory_budget // (WORKSPACE * 8 * max(1, int(np.prod(item)))))

    def __call__(self, points: NDArray[np.float64]) -> NDArray:
        """The selections (m, ...) at points (m, *shape)."""
        answers, start = [], 0
        while start < len(points):
            part = points[start : start + self.batch]
            try:
                answers.append(self._answer(part))
            except (MemoryError, torch.OutOfMemoryError):
                if self.batch == 1:
                    raise
                self.batch = max(1, min(self.batch, len(part)) // 2)
                continue
            start += len(part)
        kinds = {(answer.shape[1:], answer.dtype.kind) for answer in answers}
        if len(kinds) > 1:
            raise DetectorError(f"the detector's selections change their shape or type from batch to batch: {kinds}")
        return np.concatenate(answers)

    def _answer(self, part: NDArray[np.float64]) -> NDArray:
        try:
            with torch.no_grad():
                answer = self.detect(as_given(part, self.like))
            if isinstance(answer, torch.Tensor):
                answer = answer.detach().cpu().numpy()
            answer = np.asarray(answer)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise DetectorError(
                f"the detector failed on a batch of shape {part.shape}: {type(error).__name__}: {error}. It must answer"
                " at every point of the line: let it return a selection of its own for data that it cannot treat"
            ) from error
        if answer.dtype.kind == "O":
            raise DetectorError("the detector must return an array of one shape for all items, of numbers or strings")
        if answer.ndim == 0 or len(answer) != len(part):
            raise DetectorError(
                f"the detector must return one selection for each of the {len(part)} items of a batch, along the first "
                f"axis, not an array of shape {answer.shape}"
            )
        if answer.dtype.kind in "fc" and np.isnan(answer).any():
            raise DetectorError("the detector returned NaN, which equals nothing: return a number or a string for it")
        return answer

    def same(self, answers: NDArray, selection: NDArray) -> NDArray[np.bool_]:
        """Which selections (m, ...) equal one (...)."""
        if answers.shape[1:] != selection.shape or answers.dtype.kind != selection.dtype.kind:
            raise DetectorError(
                f"the detector selected an array of {selection.dtype} and shape {selection.shape} in the data, but "
                f"{answers.dtype} and {answers.shape[1:]} in data close to them: return arrays of one shape and type, "
                "such as a mask or labels, not lists of what was found"
            )
        return (answers == selection).reshape(len(answers), -1).all(1)


def answer_of(module: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> Any:
    """What a module makes of a batch; raises DetectorError, with the cause, where it fails."""
    try:
        return module(batch)
    except (SigadError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DetectorError(
            f"the module failed on a batch of shape {tuple(batch.shape)}: {type(error).__name__}: {reason}"
        ) from error


def as_given(part: NDArray[np.float64], like: Any) -> Any:
    """An array of the kind, precision and device in which the data were given."""
    if isinstance(like, torch.Tensor):
        return torch.as_tensor(
            part, dtype=like.dtype if like.is_floating_point() else torch.float64, device=like.device
        )
    kind = getattr(like, "dtype", np.dtype(np.float64))
    return part.astype(kind if kind.kind == "f" else np.float64)


def twice(ask: Callable[[], NDArray]) -> NDArray:
    """The answer of a detector in the data under test, asked for twice, to see whether it is drawn at random."""
    states, answers = [_global_generators()], []
    for _ in range(2):
        answers.append(ask())
        states.append(_global_generators())
    # A detector that seeds the generators itself leaves them in the same state each time.
    drew = states[0] != states[1] != states[2]
    if drew or not np.array_equal(*answers):
        raise DetectorError(
            "the detector draws random numbers"
            + (" from a global generator" if drew else ": run twice on the same data, it selects differently")
            + "; draw them beforehand and keep them, or seed it at each call: the p-value is then conditional on them"
        )
    return answers[0]


def _global_generators() -> list[bytes]:
    """The states of the generators that careless detectors draw from."""
    numbers = np.random.get_state(legacy=False)  # noqa: NPY002
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]
    position = repr((numbers["state"]["pos"], numbers["has_gauss"]))
    return [numbers["state"]["key"].tobytes(), position.encode(), *(state.numpy().tobytes() for state in states)]
