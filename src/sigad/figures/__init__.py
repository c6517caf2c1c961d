"""Figures: a module for each kind of them, and one style. Each draws exactly the numbers of the frame that it gets."""
