"""bench, with the model that the gateway brings."""

from __future__ import annotations

import re

import pytest

from mm_gateway.main import cli, run


def test_it_says_how_fast_a_model_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    run(cli, ["bench", "tiny-chat"])
    printed = capsys.readouterr().out
    assert re.search(r"tiny-chat: \d+ MB of weights on cpu, loaded in", printed)
    for clients in (1, 4, 16):
        found = re.search(rf"^{clients} +([\d.]+) +([\d.]+) +(\d+)$", printed, re.MULTILINE)
        assert found
        assert float(found[1]) == pytest.approx(clients * float(found[2]), rel=0.05)
    assert re.search(r"A prompt of \d+ tokens: [1-9]\d* tokens/s", printed)
    assert re.search(r"Memory gives [\d.]+ GB/s\. One client reads the weights once a token, at \d+% of that\.", printed)


@pytest.mark.parametrize("name", ["mock", "no such model"])
def test_what_is_not_computed_here_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(cli, ["bench", name])
    assert name in capsys.readouterr().err
