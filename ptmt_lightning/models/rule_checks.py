"""Settings of a decision rule that do not go with each other."""

from __future__ import annotations

from ptmt_lightning.decisions import Decision


def check_decision(
    decision: Decision, loss: str, *, decoding: str, tune_threshold: str | None, calibrate: str | None, coherent: bool
) -> None:
    """Refuse settings of a rule that do not go with each other, or with the decision of a loss of that name.

    Raises:
        ValueError: says what to set.
    """
    if tune_threshold and decision.single_label:
        raise ValueError(
            f"model.tune_threshold={tune_threshold}: loss={loss} predicts the best label of a level, without a "
            "threshold; set model.tune_threshold=null"
        )
    if tune_threshold and decoding != "threshold":
        raise ValueError(
            f"model.tune_threshold={tune_threshold}: model.decoding={decoding} needs no threshold; set "
            "model.tune_threshold=null, or model.decoding=threshold"
        )
    if calibrate == "isotonic" and decision.single_label:
        raise ValueError(
            f"model.calibrate=isotonic: loss={loss} gives the labels of a level probabilities that sum to 1 at most, "
            "which isotonic regression does not keep; set model.calibrate=temperature"
        )
    if coherent and decision.single_label:
        raise ValueError(
            f"model.coherent=true: loss={loss} compares the labels of a level with each "
            "other; set model.coherent=false, or loss=wasl or loss=bce"
        )
