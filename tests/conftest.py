"""One thread per process, so that parallel test runs do not oversubscribe, and reproducible hypothesis runs."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from hypothesis import settings  # noqa: E402

settings.register_profile("sigad", deadline=None, derandomize=True, max_examples=150)
settings.load_profile("sigad")
