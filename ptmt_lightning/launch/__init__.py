"""The command line of training: checks and composes settings, names and resumes runs, starts the jobs of sweeps."""
