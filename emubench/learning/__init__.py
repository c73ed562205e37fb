"""What a baseline may use: gap filling, ring correlations and least squares; filters, models, objectives, training."""
