"""Logging of one stage of the pipeline."""

import logging
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sigad.errors import SigadError


@contextmanager
def stage_log(path: str | Path) -> Generator[logging.Logger]:
    """Log a stage to a file, with its duration; an error of sigad's own ends the process with its message alone.

    Anything else that is raised is a bug, is logged with its traceback and raised on.
    """
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    log, start = logging.getLogger("sigad"), time.perf_counter()
    try:
        yield log
        log.info("done in %.2f s", time.perf_counter() - start)
    except SigadError as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(f"{type(error).__name__}: {error}")
    except Exception as error:
        log.exception("unexpected %s: %s", type(error).__name__, error)
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def cause(path: str | Path) -> str:
    """Why a stage failed: the first line of the first error in its log."""
    path = Path(path)
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if " ERROR " in line:
                return line.partition(" ERROR ")[2].partition(": ")[2]
    return "no error in its log: it was ended from outside (out of memory, time limit) or could not start"
