"""The built-in sample: requests to a help desk about devices, their parts and faults, in the project's own format."""

from ptmt_lightning.data.sample.datamodule import SampleDataModule, write_sample

__all__ = ["SampleDataModule", "write_sample"]
