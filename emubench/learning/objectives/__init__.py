"""What a training minimises: transport distances, weak forms, adversaries, calibrated innovations."""
