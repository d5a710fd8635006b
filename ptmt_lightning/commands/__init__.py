"""The subcommands of ``ptmt``, one module each; slow imports are made only when the command runs."""
