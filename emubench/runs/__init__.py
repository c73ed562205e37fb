"""Runs on disk: a job and its folder, training, scoring, timing."""
