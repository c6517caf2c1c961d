"""Real images in the form that localization experiments take: one stack, split by patient, with a manifest.

Sources (:mod:`sigad.data.brats`, :mod:`sigad.data.lgg`, :mod:`sigad.data.mvtec`, a folder of yours) give a
:class:`Series` per patient; :func:`prepare` chooses slices, finds the brain, aligns, normalises and resamples them, and
gives every patient one role. What is left out is recorded with the reason.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.checks import flag, real_number, whole_number
from sigad.data.brain import INTENSITIES, Intensity, bounding_box, brain_mask, head_mask, normalise
from sigad.data.files import write_whole
from sigad.data.pictures import resample
from sigad.data.sealed import damaged
from sigad.errors import InvalidInputError, MissingDataError

ROLES = ("train", "noise", "calibration", "reference", "test")
"""What a patient is for: training the detector, estimating the noise, thresholds and conformal scores, the mean normal
image, and testing (its normal and its anomalous slices)."""

SHARES = {"train": 0.35, "noise": 0.15, "calibration": 0.15, "reference": 0.1, "test": 0.25}
"""Shares of the patients (chosen)."""


@dataclass(frozen=True)
class Series:
    """The S images of one patient (or one image of a product), as they come from their files.

    Attributes
    ----------
    group : the patient: images of one group are dependent and never have two roles.
    names : (S,) of the images, from bottom to top for slices of a volume.
    pixels : (S, C, H, W).
    masks : (S, H, W) bool, annotated anomalies.
    brain : (S, H, W) bool, if the source knows where the brain is.
    testing : True or False where the source says what is for testing; None where it leaves that open.
    """

    group: str
    names: Sequence[str]
    pixels: NDArray
    masks: NDArray[np.bool_]
    brain: NDArray[np.bool_] | None = None
    testing: bool | None = None


class Record(NamedTuple):
    """A line of the manifest: an image, its patient, what it was used for, and else why it was left out."""

    name: str
    group: str
    role: str
    anomalous: bool
    reason: str


@dataclass(frozen=True)
class Preparation:
    """How images are prepared.

    Attributes
    ----------
    size : side of the prepared images, in pixels.
    levels : slices between these shares of the height of the head, 0 below and 1 above, are used.
    per_group : so many slices of a patient at most, evenly spaced, tumours apart from normal ones; None for all.
    brain : ``"none"``, images are used as they are; ``"head"``, without what is outside of the head; ``"found"``,
        without skull and scalp either (:func:`sigad.data.brain.brain_mask`); ``"given"``, the mask of the source.
    align : crop to the bounding box of the brain.
    least : slices with a smaller share of brain are left out.
    intensity : as in :func:`sigad.data.brain.normalise`, inside the brain; outside there is 0 then.
    clip : intensities beyond +-clip, after that, are set to it; None for none.
    gray : use the mean of the channels.
    standardise : afterwards, subtract the mean of all training images and divide by their standard deviation (two
        numbers per channel).
    """

    size: int = 32
    levels: tuple[float, float] = (0.0, 1.0)
    per_group: int | None = None
    brain: Literal["none", "head", "found", "given"] = "none"
    align: bool = False
    least: float = 0.1
    intensity: Intensity = "none"
    clip: float | None = None
    gray: bool = False
    standardise: bool = False

    def __post_init__(self):
        whole_number(self.size, "size", least=1)
        if self.per_group is not None:
            whole_number(self.per_group, "per_group", least=1)
        if self.clip is not None:
            real_number(self.clip, "clip")
        for name in ("align", "gray", "standardise"):
            flag(getattr(self, name), name)
        wrong = []
        if np.shape(self.levels) != (2,) or not 0 <= real_number(self.levels[0], "levels") < self.levels[1] <= 1:
            wrong.append(f"levels must be two shares that increase within [0, 1], not {self.levels}")
        if not 0 <= real_number(self.least, "least") < 1:
            wrong.append(f"least must lie between 0 and 1, not {self.least}")
        if self.brain not in ("none", "head", "found", "given"):
            wrong.append(f"brain must be none, head, found or given, not {self.brain!r}")
        if self.align and self.brain == "none":
            wrong.append("align needs a brain to align to: set brain to head, found or given")
        if self.intensity not in INTENSITIES:
            wrong.append(f"intensity must be one of {', '.join(INTENSITIES)}, not {self.intensity!r}")
        if self.clip is not None and (self.intensity == "none" or not self.clip > 0):
            wrong.append("clip must be positive, and needs an intensity other than none")
        if wrong:
            raise InvalidInputError("; ".join(wrong))


@dataclass(frozen=True)
class ImageStack:
    """Prepared images.

    Attributes
    ----------
    name : what the set is called.
    images : (m, C, size, size) float32.
    masks : (m, size, size) bool, annotated anomalies; empty for normal images.
    within : (m, size, size) bool, the brain; everywhere where no brain was looked for.
    names, groups, roles : (m,) str: what each image is called, its patient, and its role, one of :data:`ROLES`.
    left_out : records of all other images of the source.
    """

    name: str
    images: NDArray[np.float32]
    masks: NDArray[np.bool_]
    within: NDArray[np.bool_]
    names: NDArray[np.str_]
    groups: NDArray[np.str_]
    roles: NDArray[np.str_]
    left_out: tuple[Record, ...] = field(default=(), repr=False)

    def __post_init__(self):
        m = len(self.images)
        shapes = {(m, *self.images.shape[2:])}
        wrong = []
        if self.images.ndim != 4 or {self.masks.shape, self.within.shape} != shapes:
            wrong.append(f"images {self.images.shape}, masks {self.masks.shape}, within {self.within.shape} do not fit")
        if any(len(part) != m for part in (self.names, self.groups, self.roles)):
            wrong.append(f"{m} images need as many names, groups and roles")
        elif not set(self.roles.tolist()) <= set(ROLES):
            wrong.append(f"roles are {', '.join(ROLES)}, not {', '.join(sorted({*self.roles.tolist()} - {*ROLES}))}")
        else:
            pairs = sorted({(g, r) for g, r in zip(self.groups.tolist(), self.roles.tolist(), strict=True)})
            for group in sorted({g for g, _ in pairs}):
                roles = [r for g, r in pairs if g == group]
                if len(roles) > 1:
                    wrong.append(f"{group} is in {' and '.join(roles)}: images of one patient have one role")
            for i in np.flatnonzero(self.masks.any((1, 2)) & (self.roles != "test")):
                wrong.append(f"{self.names[i]} has an anomaly and the role {self.roles[i]}: only test images may")
        if not np.isfinite(self.images).all():
            wrong.append("pixels are not finite")
        if wrong:
            raise InvalidInputError(f"the stack {self.name!r} cannot be used:\n" + "\n".join(f"  {w}" for w in wrong))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        count = ", ".join(f"{np.count_nonzero(self.roles == role)} {role}" for role in ROLES)
        return f"ImageStack({self.name}: {'x'.join(map(str, self.images.shape[1:]))}; {count})"

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Whether an anomaly is annotated, (m,)."""
        return np.any(self.masks, axis=(1, 2))

    def which(self, role: str, *, anomalous: bool = False) -> NDArray[np.int64]:
        """Numbers of the normal (or the anomalous) images of a role."""
        if role not in ROLES:
            raise InvalidInputError(f"the role must be one of {', '.join(ROLES)}, not {role!r}")
        return np.flatnonzero((self.roles == role) & (self.anomalous == anomalous))

    def of(self, role: str, *, anomalous: bool = False) -> NDArray[np.float64]:
        """The normal (or the anomalous) images of a role, (k, C, size, size), in double precision."""
        return self.images[self.which(role, anomalous=anomalous)].astype(np.float64)

    def common(self, share: float = 0.9) -> NDArray[np.bool_]:
        """The pixels that lie in the brain in at least ``share`` of the training images, (size, size): a mask that is
        fixed before testing."""
        return self.within[self.roles == "train"].mean(0) >= share

    def manifest(self) -> list[Record]:
        """What every image of the source was used for, or why it was left out."""
        used = zip(self.names.tolist(), self.groups.tolist(), self.roles.tolist(), self.anomalous.tolist(), strict=True)
        return sorted([*(Record(*line, "") for line in used), *self.left_out], key=lambda r: (r.group, r.name))

    def save(self, path: str | Path, manifest: str | Path | None = None) -> None:
        """Write everything to one file (.npz), and the manifest to another (.csv)."""
        buffer = io.BytesIO()
        left_out = np.array(json.dumps(self.left_out))
        arrays = {key: getattr(self, key) for key in ("images", "names", "groups", "roles")}
        bits = {key: np.packbits(getattr(self, key), axis=-1) for key in ("masks", "within")}
        np.savez_compressed(buffer, name=np.array(self.name), left_out=left_out, **arrays, **bits)
        write_whole(path, buffer.getvalue())
        if manifest is not None:
            import pandas as pd

            write_whole(manifest, pd.DataFrame(self.manifest(), columns=Record._fields).to_csv(index=False).encode())

    @classmethod
    def load(cls, path: str | Path) -> "ImageStack":
        """Read what :meth:`save` wrote; MissingDataError or InvalidInputError if it is not there or something else."""
        if not Path(path).is_file():
            raise MissingDataError(f"there is no file {path}: prepare the images first")
        try:
            with np.load(path, allow_pickle=False) as file:
                width = file["images"].shape[-1]
                bits = {key: np.unpackbits(file[key], axis=-1, count=width) > 0 for key in ("masks", "within")}
                arrays = {key: file[key] for key in ("images", "names", "groups", "roles")}
                left_out = tuple(Record(*line) for line in json.loads(str(file["left_out"])))
                name = str(file["name"])
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise damaged(path, "cannot be read as a stack that sigad wrote") from error
        return cls(name, left_out=left_out, **arrays, **bits)


def prepare(
    series: Iterable[Series],
    how: Preparation = Preparation(),
    *,
    name: str,
    seed: int,
    shares: Mapping[str, float] = SHARES,
) -> ImageStack:
    """Prepare images and give every patient a role.

    Roles are dealt out at random among the patients of which an image is left, in the proportion of ``shares``; where
    the source says what is for testing, the others are dealt out among the other roles.

    Parameters
    ----------
    series : of one patient each, read one after the other; a patient may have several.
    seed : of the split.
    shares : of the patients, by role.

    Raises
    ------
    InvalidInputError
        that names every file that the source could not read, every series that cannot be used (two images of one name,
        shapes that do not fit, numbers that are not finite, no mask of the brain where it should be given, a patient
        who is for testing in one and not in another), and roles for which no patient is left.
    """
    seed = whole_number(seed, "seed", least=0)
    if not isinstance(how, Preparation):
        raise InvalidInputError(f"how must be a Preparation, such as Preparation(size=32), not {how!r}")
    unknown = set(shares) ^ set(ROLES)
    if unknown or not all(0 <= real_number(shares[role], f"the share {role}") <= 1 for role in ROLES):
        raise InvalidInputError(f"shares must be between 0 and 1, for each of {', '.join(ROLES)}")
    wrong, left_out, kept, seen, testing = [], [], [], set(), {}
    shape = None
    if not isinstance(series, Iterable):
        raise InvalidInputError(f"{name}: images come as a list of Series, not as {type(series).__name__}")
    for one in _readable(series, wrong):
        if not isinstance(one, Series):
            raise InvalidInputError(f"{name}: images come as Series, one for each patient, not as {type(one).__name__}")
        found = _misfits(one)
        if not found:
            found = _faults(one, how)
            found += [f"{title}: a second image of this name" for title in one.names if title in seen]
            seen.update(one.names)
        channels = one.pixels.shape[1] if not found and not how.gray else None
        if not found and shape not in (None, channels):
            found.append(f"{channels} channels, others have {shape}")
        if testing.setdefault(one.group, one.testing) != one.testing:
            found.append("for testing in one series and not in another: images of one patient have one role")
        if found:
            wrong += [f"{one.group}: {fault}" for fault in found]
            continue
        shape = channels
        if wrong:
            continue  # nothing will be used: only look for more that is wrong
        for item in _prepared(one, how):
            (left_out if isinstance(item, Record) else kept).append(item)
    if not kept and not wrong:
        wrong.append("no image is left" + (f": {left_out[0].reason}, ..." if left_out else ""))
    if wrong:
        raise InvalidInputError(f"{name} cannot be prepared:\n" + "\n".join(f"  {line}" for line in wrong))
    roles = _roles({group: testing[group] for group in dict.fromkeys(k[0] for k in kept)}, shares, seed, name)
    used = []
    for group, title, image, mask, within in kept:
        role = roles[group]
        if mask.any() and role != "test":
            left_out.append(Record(title, group, "", True, f"an anomaly of a patient for {role}"))
        else:
            used.append((group, title, role, image, mask, within))
    groups, titles, roles, images, masks, brains = (np.array(column) for column in zip(*used, strict=True))
    if how.standardise:
        train = images[roles == "train"]
        mean, sd = (f(train, axis=(0, 2, 3), keepdims=True, dtype=np.float64) for f in (np.mean, np.std))
        if not (sd > 0).all():
            raise InvalidInputError(f"{name} cannot be standardised: its training images are constant")
        images = ((images - mean) / sd).astype(np.float32)
    return ImageStack(name, images, masks, brains, titles, groups, roles, tuple(left_out))


def _readable(series: Iterable[Series], wrong: list[str]) -> Iterable[Series]:
    """The series of a source; what it could not read is added to what is wrong, when it says so."""
    try:
        yield from series
    except InvalidInputError as error:
        wrong.append(str(error))


def _misfits(one: Series) -> list[str]:
    """What of a series is not even of the kind that it should be."""
    arrays = [one.pixels, one.masks] + ([] if one.brain is None else [one.brain])
    named = isinstance(one.names, Sequence | np.ndarray) and not isinstance(one.names, str)
    if not named or not all(isinstance(array, np.ndarray) for array in arrays):
        return ["pixels, masks and brain must be NumPy arrays, and names a list of text"]
    if one.testing not in (True, False, None):
        return [f"testing must be True, False or None, not {one.testing!r}"]
    return []


def _faults(one: Series, how: Preparation) -> list[str]:
    """What makes a series unusable."""
    pixels, masks, count = one.pixels, one.masks, len(one.names)
    if pixels.ndim != 4 or len(pixels) != count or not count:
        return [f"pixels of shape {pixels.shape} for {count} images (S, C, H, W)"]
    expected, found = (count, *pixels.shape[2:]), []
    if masks.shape != expected or masks.dtype != bool:
        found.append(f"masks must be boolean of shape {expected}, not {masks.dtype} {masks.shape}")
    if one.brain is not None and (one.brain.shape != expected or one.brain.dtype != bool):
        found.append(f"brain must be boolean of shape {expected}, not {one.brain.dtype} {one.brain.shape}")
    if one.brain is None and how.brain == "given":
        found.append("it comes without a mask of the brain: set brain to head or found")
    if pixels.dtype.kind not in "buif":
        found.append(f"pixels must be real numbers, not {pixels.dtype}")
    elif pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        found.append("pixels that are not finite")
    return found


def _prepared(one: Series, how: Preparation):
    """Every image of a series: prepared (group, name, image, mask, within), or a Record of why it is left out."""
    record = lambda i, reason: Record(one.names[i], one.group, "", bool(one.masks[i].any()), reason)  # noqa: E731
    brains = _brains(one, how)
    there = np.flatnonzero([brain.any() for brain in brains])
    chosen: dict[bool, list[int]] = {False: [], True: []}
    for i, brain in enumerate(brains):
        level = (i - there[0]) / max(there[-1] - there[0], 1) if len(there) else 0.0
        if np.ptp(one.pixels[i]) == 0:
            yield record(i, "constant")
        elif not brain.any():
            yield record(i, "no brain")
        elif brain.mean() < how.least and how.brain != "none":
            yield record(i, f"less than {how.least:.0%} of it is brain")
        elif len(brains) > 1 and not how.levels[0] <= level <= how.levels[1]:
            yield record(i, f"its level is outside {how.levels[0]:g}..{how.levels[1]:g}")
        else:
            chosen[bool(one.masks[i].any())].append(i)
    for numbers in chosen.values():
        few = numbers
        if how.per_group is not None and len(numbers) > how.per_group:
            few = [numbers[round(k)] for k in np.linspace(0, len(numbers) - 1, how.per_group)]
            for i in sorted(set(numbers) - set(few)):
                yield record(i, f"only {how.per_group} images of a patient are used")
        for i in few:
            found = _one(one.pixels[i], one.masks[i], brains[i], how)
            yield record(i, found) if isinstance(found, str) else (one.group, one.names[i], *found)


def _brains(one: Series, how: Preparation) -> NDArray[np.bool_]:
    if how.brain == "none":
        return np.ones((len(one.names), *one.pixels.shape[2:]), bool)
    if how.brain == "given":
        assert one.brain is not None, "a fault that stops the preparation"
        return one.brain
    find = head_mask if how.brain == "head" else brain_mask
    return np.array([find(image.mean(0)) for image in one.pixels])


def _one(pixels: NDArray, mask: NDArray[np.bool_], brain: NDArray[np.bool_], how: Preparation):
    """Image, mask and brain at the size that is asked for; or why there is none."""
    image = np.asarray(pixels, np.float32)
    image = image.mean(0, keepdims=True) if how.gray else image
    if how.intensity != "none":
        try:
            image = np.where(brain, normalise(image, brain, how.intensity), 0)
            image = image if how.clip is None else image.clip(-how.clip, how.clip)
        except InvalidInputError as error:
            return str(error)
    elif how.brain != "none":
        image = np.where(brain, image, 0)
    box = bounding_box(brain) if how.align else None
    small = resample(np.stack([mask, brain]), how.size, box) >= 0.5
    if mask.any() and not small[0].any():
        return f"its anomaly is smaller than a pixel at {how.size}x{how.size}"
    return resample(image, how.size, box), small[0], small[1]


def _roles(testing: Mapping[str, bool | None], shares: Mapping[str, float], seed: int, name: str) -> dict[str, str]:
    """A role for every group."""
    rng = np.random.default_rng(seed)
    result = {group: "test" for group, test in testing.items() if test}
    for free, roles in (
        ([g for g, test in testing.items() if test is None], ROLES),
        ([g for g, test in testing.items() if test is False], ROLES[:-1]),
    ):
        weights = np.array([shares[role] for role in roles])
        if not free:
            continue
        if not weights.sum() > 0:
            raise InvalidInputError(f"{name}: the shares of {', '.join(roles)} are 0, which leaves no role for images")
        ends = np.round(np.cumsum(weights) / weights.sum() * len(free)).astype(int)
        order = rng.permutation(len(free))
        for role, part in zip(roles, np.split(order, ends[:-1]), strict=True):
            result.update({free[i]: role for i in part})
    empty = [role for role in ROLES if shares[role] and role not in result.values()]
    if empty:
        raise InvalidInputError(
            f"{name} has {len(testing)} patients or images, too few: none is left for {', '.join(empty)}; "
            "give more, or larger shares"
        )
    return result
