"""sigad: the significance of anomaly detections, by selective inference."""

__version__ = "0.1.0"
