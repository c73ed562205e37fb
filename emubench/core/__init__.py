"""What every room stands on: errors, random streams, the registry, worker processes, the device at hand."""
