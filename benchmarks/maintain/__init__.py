"""Tools of the maintainers, run from the top of a checkout: ``python -m benchmarks.maintain.<name>``."""
