"""What a training minimises: weak forms, calibrated innovations."""
