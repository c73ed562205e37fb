"""Runs on disk: a job and its folder, training, scoring, timing; grids of many; emulators in a child process."""
