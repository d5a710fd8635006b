"""``python -m ptmt_lightning.launch``, the same as ``ptmt train``: how jobs and ranks are started again."""

from ptmt_lightning.launch.app import main

if __name__ == "__main__":
    main()
