"""Export in OpenVINO's format: two files, one with the layers and one with their weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.export import ExportedProgram

from ptmt_lightning.utils.checks import shortened

_NO_TELEMETRY = {"CI": "true", "NNCF_CI": "1"}
Inputs = Mapping[str, npt.NDArray[np.int64]]  # what the layers read of a batch, by name


def write_openvino(
    program: ExportedProgram, path: Path, inputs: Sequence[str], *, int8: bool, calibration: Sequence[Inputs]
) -> None:
    """Convert traced layers, and write them.

    Args:
        program: the layers; their result is the logits ``[B, V]``.
        path: path of the file with the layers; the one with the weights is written beside it.
        inputs: names of the tensors that the layers read, in their order.
        int8: whether to use 8-bit numbers.
        calibration: batches by which their ranges are chosen for activations; without, weights alone are in 8 bits.

    Raises:
        ValueError: a package is missing, or the layers can't be converted.
    """
    with _no_telemetry():
        try:
            import openvino  # comes with the extra "openvino", as does nncf

            if int8:
                import nncf
        except ImportError as error:
            raise ValueError(
                f"format='openvino': {error}; install it with pip install 'ptmt_lightning[openvino]'"
            ) from error
        try:
            model = openvino.convert_model(program)
        except RuntimeError as error:  # the base of its own kinds
            reason = shortened(str(error).strip().splitlines()[-1])
            raise ValueError(f"format='openvino': the layers can't be converted ({reason}); try onnx") from error
        for port, name in zip(model.inputs, inputs, strict=True):
            port.get_tensor().set_names({name})
        model.output(0).get_tensor().set_names({"logits"})
        if int8 and not calibration:
            model = nncf.compress_weights(model)
        elif int8:
            # For transformers it moves outliers of activations into weights, and leaves out what is sensitive.
            model = nncf.quantize(
                model, nncf.Dataset(calibration), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration)
            )
        try:
            openvino.save_model(model, path, compress_to_fp16=False)
        except RuntimeError:  # of a full disk, for one, which it does not say
            with path.with_suffix(".bin").open("ab") as file:
                file.write(bytes(2**20))  # Python does
            raise


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Keep openvino and nncf from sending statistics within this block, as they do by default outside of CI jobs."""
    before = {name: os.environ.get(name) for name in _NO_TELEMETRY}
    os.environ.update(_NO_TELEMETRY)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
