"""The program ``python -m ptmt_lightning.launch``, the same as ``ptmt train``; jobs and further ranks start with it."""

from ptmt_lightning.launch.app import main

if __name__ == "__main__":
    main()
