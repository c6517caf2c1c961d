"""Selective inference: regions, truncated distributions, engines, results. Knows no detector."""
