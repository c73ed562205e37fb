"""Many runs: a grid file becomes resumable steps, which executors do on one core, on many, or on a cluster."""
