"""What a training minimises: transport distances, weak forms, calibrated innovations."""
