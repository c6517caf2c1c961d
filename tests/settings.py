"""A small setting of the kind ``knn_synthetic``, for tests of what runs on it."""

SETTING = {"n": 30, "d": 4, "k": "1-5"}
