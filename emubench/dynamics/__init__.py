"""Systems and their solvers: schemes, simulation, Lyapunov spectra, climate. It knows no task and no file."""
