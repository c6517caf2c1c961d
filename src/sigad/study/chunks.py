"""Chunks of repetitions: what one job computes."""


def chunk_names(repetitions: int, size: int) -> list[str]:
    """Names of the chunks of repetitions, by index range: ``00000-00099``, ``00100-00199``, ...

    The borders are multiples of ``size``, so that more repetitions add chunks and leave the full ones as they are.
    """
    return [f"{start:05d}-{min(start + size, repetitions) - 1:05d}" for start in range(0, repetitions, size)]


def chunk_range(name: str) -> range:
    """The repetitions of a chunk, from its name."""
    first, last = name.split("-")
    return range(int(first), int(last) + 1)
