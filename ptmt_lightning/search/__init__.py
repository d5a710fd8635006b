"""Search for settings with Optuna; the Hydra sweeper that starts it, ``optuna``, is in ``hydra_plugins``."""
