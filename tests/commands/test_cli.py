"""The ``ptmt`` command itself: wrong commands are refused, and each has its help."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptmt_lightning.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "download", "imdb"], "argument name: invalid choice: 'imdb' (choose from"),
        (["data", "download"], "the following arguments are required: name"),
        (["data", "upload", "bgc"], "argument ACTION: invalid choice: 'upload' (choose from"),
        (["data"], "the following arguments are required: ACTION"),
        ([], "the following arguments are required: COMMAND"),
        (["learn"], "argument COMMAND: invalid choice: 'learn' (choose from"),
        (["data", "info", "bugs", "--fold", "6"], "argument --fold: invalid choice: 6 (choose from"),
        (["data", "info", "bugs", "--fold", "one"], "argument --fold: invalid int value: 'one'"),
        (["data", "download", "bugs", "--fold", "1"], "unrecognized arguments: --fold 1"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["data"], ["data", "download"], ["data", "info"]], ids=" ".join)
def test_help_is_there_for_each_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([*arguments, "--help"])
    assert error.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: ptmt", *arguments]))
