"""Datasets: what is observed of a system, tasks and their recipes, generation, loading, verification."""
