"""How a training runs: descent with checkpoints, its log, its settings, validation."""
