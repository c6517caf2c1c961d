"""What experiments on patches of images ask of the configuration."""

from collections.abc import Mapping
from typing import Any

from sigad.data.mvtec import require_images
from sigad.errors import ConfigurationError, unknown


def require_patches(dataset: str, features: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError or MissingDataError unless network and images are known and can be had."""
    known = config.get("features") or {}
    if features not in known:
        raise ConfigurationError(f"features: {unknown('network', features, known)}")
    require_images(dataset, config.get("images") or {}, config["data"])
