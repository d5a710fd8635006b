"""What the Hydra sweeper ``optuna`` is made of; the sweeper itself is in ``hydra_plugins``."""
