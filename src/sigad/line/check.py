"""Can the exact engine take this network? If not, where does it stop, and why?"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from sigad.checks import whole_number
from sigad.errors import InvalidInputError, SigadError
from sigad.line.restriction import Restriction


@dataclasses.dataclass(frozen=True)
class Check:
    """The answer of :func:`check`: true if the engine takes the module, and printed in a few lines.

    module : its class. shape : of the instances.
    submodule : the name, in ``named_modules()``, of the one where the engine stopped ("" for the module itself); None
        if it did not stop.
    operation : the operation that it stopped at, where it was one.
    reason : what stopped it, and the way out.
    """

    module: str
    shape: tuple[int, ...]
    submodule: str | None = None
    operation: str | None = None
    reason: str = ""

    def __bool__(self) -> bool:
        return self.submodule is None

    def __str__(self) -> str:
        if self:
            return f"The exact engine takes {self.module} on instances of shape {self.shape}."
        where = f"submodule {self.submodule!r}" if self.submodule else "the module itself"
        what = f", operation {self.operation!r}" if self.operation else ""
        return (
            f"The exact engine does not take {self.module} on instances of shape {self.shape}.\n"
            f"It stopped in {where}{what}:\n{self.reason}"
        )

    __repr__ = __str__


def check(module: Callable, shape: Sequence[int]) -> Check:
    """Whether the exact engine can take a module on instances of a shape (without a batch dimension).

    The module is run along a short line through a random instance, and only the first obstacle is reported. What lies
    behind an ``if`` that this instance does not reach is not seen.

    >>> sigad.check(network, (3, 32, 32))
    The exact engine does not take EfficientNet on instances of shape (3, 32, 32).
    It stopped in submodule 'features.0.2', operation 'silu':
    ...
    """
    name = type(module).__name__
    try:
        shape = tuple(whole_number(n, "shape", least=1) for n in shape)
    except TypeError:
        raise InvalidInputError(f"shape must be that of an instance, such as (3, 32, 32), not {shape!r}") from None
    generator = torch.Generator().manual_seed(0)
    x, direction = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    inside: list[str] = []
    try:
        line = Restriction(module, x, direction, dtype=torch.float64)
        with _followed(line.module, inside):
            line(0.0, 1e-3)
    except Exception as error:  # whatever it is, it is the answer
        reason = str(error) if isinstance(error, SigadError) else f"{type(error).__name__}: {error}"
        return Check(name, shape, inside[-1] if inside else "", getattr(error, "operation", None), reason)
    return Check(name, shape)


@contextmanager
def _followed(module: Callable, inside: list[str]) -> Iterator[None]:
    """Within the block, `inside` holds the names of the submodules that are running, the innermost last."""
    handles = []
    for name, part in module.named_modules() if isinstance(module, nn.Module) else ():

        def enter(*_, name=name) -> None:
            inside.append(name)

        def leave(*_) -> None:
            inside.pop()

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
