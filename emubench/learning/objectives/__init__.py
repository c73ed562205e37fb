"""What a training minimises: transport distances, weak forms, adversaries, shooting, calibrated innovations."""
