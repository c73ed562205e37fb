"""Forecasts of an emulator: their scores, figures and diagnostics, and how fast they come beside solvers."""
