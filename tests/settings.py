"""A small setting of the kind ``knn_synthetic``, for tests of what runs on it."""

SETTING = {
    "model": "parametric",
    "clusters": 3,
    "n": 30,
    "d": 4,
    "k": "1-5",
    "signal": 0.0,
    "quantile": 0.9,
    "metric": "l2",
    "noise": "normal",
    "distance": 0.0,
}
