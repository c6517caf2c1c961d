"""Figures: each draws exactly the numbers of the frame that it gets."""
