"""Data for the experiments: synthetic noise and instances, tabular sets, and where they come from."""
