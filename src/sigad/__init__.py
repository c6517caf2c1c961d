"""sigad: the significance of anomaly detections, by selective inference."""

__version__ = "0.1.0"

import os

# Both are read once, before the first tensor and the first convolution; who has set them is not overruled.
# Large pages for large tensors, where the system has them: the line engine asks for memory all the time, and small
# pages cost a tenth of its time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# oneDNN compiles a convolution for each number of images and remembers 1,024. A network along lines needs more: to
# compile them again, test after test, costs a test of 16x16 images 8 % of its time.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
