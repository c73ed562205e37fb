"""Forecasts of an emulator, their scores and figures, and diagnostics beside them."""
