"""The subcommands of ``ptmt``, a module each, which imports what is heavy where it runs."""
