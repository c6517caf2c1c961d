"""Detectors of other libraries as the tests take them. They are used as they are; none of the libraries is imported."""
