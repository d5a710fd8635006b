"""``python -m ptmt_lightning``, the same as the command ``ptmt``."""

from ptmt_lightning.cli import main

if __name__ == "__main__":
    main()
