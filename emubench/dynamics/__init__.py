"""Systems and their solvers: integration schemes, simulation, Lyapunov spectra, climate. It knows no task and no file."""
