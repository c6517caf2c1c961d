"""sigad: the significance of anomaly detections, by selective inference."""

__version__ = "0.1.0"

import os

# Large pages for large tensors, where the system has them: the line engine asks for memory all the time; small pages
# cost a tenth of its time. Torch reads this before its first tensor; who has set it is not overruled.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
