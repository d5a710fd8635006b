"""The subcommands of ``ptmt``, a module each; only the one that is called is imported."""
