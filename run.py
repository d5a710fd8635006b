"""Train and test one configuration: ``python run.py dataset=sample backbone=tiny``; see README.md."""

from ptmt_lightning.launch.app import main

if __name__ == "__main__":
    main()
