"""State estimation from noisy, partial contexts: ensemble Kalman filters and Wiener smoothing."""
