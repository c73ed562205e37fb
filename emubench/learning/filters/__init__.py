"""State estimation from noisy, partial contexts: ensemble Kalman filters, nudging, Wiener smoothing."""
