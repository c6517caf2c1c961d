"""Random programs of tensor operations: views, copies, operations in place on what others see.

A program is a list of steps on a list of tensors. It is made by running it on plain tensors, where a step that torch
refuses is left out. It returns all its tensors, so that a write that did not reach one of them shows.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.fuzz import fuzzer
from tests.fuzz.line_networks import Choice
from tests.fuzz.line_oracle import hold

Step = Callable[[list[Tensor]], Tensor | None]


def index(choice: Choice, shape: torch.Size):
    """A random index of a tensor: numbers, slices, None, an ellipsis, a list, a mask."""
    if choice.integer(0, 7) == 0:
        return torch.rand(shape, generator=choice.generator) > 0.5
    parts = []
    for n in shape[: choice.integer(0, len(shape))]:
        parts.append(choice.of(
            slice(None), slice(None), choice.integer(-n, n - 1), slice(choice.integer(0, n - 1), None),
            slice(None, choice.integer(1, n)), slice(None, None, 2), [choice.integer(0, n - 1)],
        ))  # fmt: skip
    if choice.of(True, False, False):
        parts.insert(choice.integer(0, len(parts)), choice.of(None, ...))
    return tuple(parts)


def views(choice: Choice, x: Tensor) -> Callable[[Tensor], Tensor]:
    n, d = x.ndim, choice.integer(0, max(x.ndim - 1, 0))
    at, order = index(choice, x.shape), torch.randperm(n, generator=choice.generator).tolist()
    letters, size = "abcdefgh"[:n], x.shape[d] if n else 1
    k = choice.integer(1, max(size - 1, 1))
    return choice.of(
        lambda t: t[at], lambda t: t[at], lambda t: t[at], lambda t: t.permute(order), lambda t: t.transpose(0, d),
        lambda t: t.mT, lambda t: t.unsqueeze(d), lambda t: t.squeeze(d), lambda t: t.flatten(),
        lambda t: t.reshape(-1),
        lambda t: t.view(-1), lambda t: t.view(t.shape[0], -1), lambda t: t.select(d, k - 1),
        lambda t: t.narrow(d, 0, k),
        lambda t: t.split([k, size - k], d)[1], lambda t: t.chunk(2, d)[0], lambda t: t.unbind(d)[-1],
        lambda t: t.unfold(d, k, 1), lambda t: t.diagonal(), lambda t: t.detach(), lambda t: t.contiguous(),
        lambda t: +t, lambda t: t.to(t.dtype), lambda t: t.to(t.dtype, copy=True), lambda t: t.clone(),
        lambda t: torch.einsum(f"{letters}->{''.join(letters[i] for i in order)}", t), lambda t: t.movedim(0, d),
        lambda t: t.expand(2, *t.shape), lambda t: t.unflatten(d, (1, -1)), lambda t: F.dropout(t, training=False),
        lambda t: t.view_as(t), lambda t: t.hsplit(1)[0], lambda t: t.ravel(), lambda t: t.tensor_split(2, d)[0],
    )  # fmt: skip


def copies(choice: Choice, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Operations that make a new tensor of one tensor, or of two. (torch's median of an expanded tensor is wrong.)"""
    d, c = choice.integer(0, max(x.ndim - 1, 0)), float(choice.normal())
    mask, constant = torch.rand(x.shape, generator=choice.generator) > 0.5, choice.normal(*x.shape)
    keep, size = choice.of(True, False), x.shape[d] if x.ndim else 1
    places = torch.randint(size, x.shape, generator=choice.generator)
    return choice.of(
        lambda t, u: t + c, lambda t, u: c * t, lambda t, u: t - constant, lambda t, u: constant * t, lambda t, u: -t,
        lambda t, u: t + u, lambda t, u: t - u, lambda t, u: torch.maximum(t, u), lambda t, u: torch.fmin(t, u),
        lambda t, u: torch.where(mask, t, u), lambda t, u: torch.lerp(t, u, c), lambda t, u: t.addcmul(u, constant),
        lambda t, u: F.relu(t), lambda t, u: t.abs(), lambda t, u: t.clamp(-0.5, 0.5), lambda t, u: F.leaky_relu(t),
        lambda t, u: F.hardtanh(t), lambda t, u: t.clamp(max=u), lambda t, u: F.softshrink(t),
        lambda t, u: t.sum(d, keep),
        lambda t, u: t.mean(d, keep), lambda t, u: t.amax(d, keep), lambda t, u: t.max(d, keep)[0],
        lambda t, u: t.min(),
        lambda t, u: t.sort(d)[0], lambda t, u: t.topk(1, d)[0], lambda t, u: t.clone().median(d, keep).values,
        lambda t, u: t.cumsum(d), lambda t, u: t.norm(1, d), lambda t, u: t.norm(float("inf"), d),
        lambda t, u: t.flip(d),
        lambda t, u: torch.cat([t, u], d), lambda t, u: torch.stack([t, u], d), lambda t, u: t.roll(1, d),
        lambda t, u: t.gather(d, places), lambda t, u: t.scatter_add(d, places, u), lambda t, u: t.masked_fill(mask, c),
        lambda t, u: t.repeat_interleave(2, d), lambda t, u: t.tril(), lambda t, u: F.l1_loss(t, u),
        lambda t, u: t.diff(1, d),
        lambda t, u: t.index_add(d, places.flatten()[:1], u.narrow(d, 0, 1)), lambda t, u: torch.zeros_like(t),
        lambda t, u: torch.ones_like(t), lambda t, u: t.new_full(t.shape, c), lambda t, u: t.new_zeros(u.shape),
        lambda t, u: t.aminmax(dim=d)[1], lambda t, u: torch.tensordot(t, constant, x.ndim), lambda t, u: t / 2.0,
        lambda t, u: t.amax(), lambda t, u: t.kthvalue(1, d)[0], lambda t, u: t @ constant.mT,
    )  # fmt: skip


def writes(choice: Choice, x: Tensor) -> Callable[[Tensor, Tensor], object]:
    """Operations that change the first tensor, with what they need of the second."""
    d, c, at = choice.integer(0, max(x.ndim - 1, 0)), float(choice.normal()), index(choice, x.shape)
    mask, constant = torch.rand(x.shape, generator=choice.generator) > 0.5, choice.normal(*x.shape)
    size = x.shape[d] if x.ndim else 1
    places = torch.randint(size, x.shape, generator=choice.generator)

    def set_item(t, u):
        t[at] = u

    def set_number(t, u):
        t[at] = c

    def set_constant(t, u):
        t[at] = constant[at]

    def add_to_item(t, u):
        t[at] += u

    def shift(t, u):
        t[1:] = t[:-1].clone()

    def overlap(t, u):
        t[1:] = t[:-1]

    return choice.of(
        set_item, set_item, set_number, set_constant, add_to_item, shift, overlap, lambda t, u: t.add_(u),
        lambda t, u: t.sub_(u),
        lambda t, u: t.add_(c), lambda t, u: t.mul_(constant), lambda t, u: t.relu_(), lambda t, u: t.abs_(),
        lambda t, u: t.neg_(), lambda t, u: t.clamp_(-0.6, 0.6), lambda t, u: F.relu(t, inplace=True),
        lambda t, u: F.leaky_relu_(t, 0.1), lambda t, u: t.copy_(u), lambda t, u: t.copy_(constant),
        lambda t, u: t.fill_(c), lambda t, u: t.zero_(), lambda t, u: t.masked_fill_(mask, c),
        lambda t, u: t.lerp_(u, 0.3),
        lambda t, u: t.scatter_add_(d, places, u), lambda t, u: t.addcmul_(u, constant), lambda t, u: t.cumsum_(d),
        lambda t, u: t.index_fill_(d, places.flatten()[:1], c), lambda t, u: F.hardtanh_(t), lambda t, u: t.div_(2.0),
        lambda t, u: t.tril_(), lambda t, u: t.clamp_min_(0.0), lambda t, u: t.__iadd__(u), lambda t, u: t.__imul__(c),
    )  # fmt: skip


def random_step(choice: Choice, tensors: list[Tensor]) -> Step:
    i = choice.integer(0, len(tensors) - 1)
    shape = tensors[i].shape
    same = [j for j, t in enumerate(tensors) if t.shape == shape]
    j = choice.of(*same) if choice.integer(0, 3) else choice.integer(0, len(tensors) - 1)
    kind = choice.of("view", "view", "copy", "write", "write")
    if kind == "view":
        view = views(choice, tensors[i])
        return lambda ts: view(ts[i])
    made = (copies if kind == "copy" else writes)(choice, tensors[i])
    if kind == "copy":
        return lambda ts: made(ts[i], ts[j])

    def write(ts: list[Tensor]) -> None:
        made(ts[i], ts[j])

    return write


class Program:
    """The steps, as a module. Tensors that are dropped on the way are no longer seen by others."""

    def __init__(self, choice: Choice, x: Tensor, steps: int):
        self.steps: list[tuple[Step, int | None]] = []
        while len(self.steps) < steps:
            tensors = self.run(x)
            step = random_step(choice, tensors)
            dropped = choice.integer(0, len(tensors) - 1) if len(tensors) > 4 else None
            try:
                result = step(tensors)
            except (RuntimeError, IndexError, TypeError, ValueError):
                continue
            fits = result is None or (isinstance(result, Tensor) and 0 < result.numel() <= 100 and result.ndim <= 5)
            if fits and all(float(t.abs().max()) < 100 for t in tensors):
                self.steps.append((step, dropped))

    def run(self, x: Tensor) -> list[Tensor]:
        tensors = [x.clone()]
        for step, dropped in self.steps:
            result = step(tensors)
            if result is not None:
                tensors.append(result)
            del result
            if dropped is not None and dropped < len(tensors) - 1:
                del tensors[dropped]
        return tensors

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.reshape(1, -1) for t in self.run(x))


@fuzzer("line operations")
def line_operations(seed: int) -> str:
    choice = Choice(seed)
    shape = choice.of((3, 4), (2, 2, 3), (4,), (2, 3, 3))
    x, direction = choice.normal(*shape), choice.normal(*shape)
    if choice.of(True, False, False):
        x, direction = x.round(), direction.round()
    program = Program(choice, x[None], choice.integer(2, 9))
    return hold(program, x, direction, (-1.0, choice.of(-0.9, 0.0, 1.0)), choice.generator)
