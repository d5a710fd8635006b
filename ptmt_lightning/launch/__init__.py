"""The command line of a training: settings checked and composed, runs named and resumed, jobs of sweeps started."""
