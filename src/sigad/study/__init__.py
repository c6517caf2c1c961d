"""Experiments: kinds of trials, methods, runs, rates."""
