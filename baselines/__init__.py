"""The baselines: one method per file, to read and to copy. A file is its own registration."""
