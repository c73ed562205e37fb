"""How fast an emulator forecasts, how fast a solver of the same accuracy does, and what bounds both."""
