"""What a check found."""

from __future__ import annotations

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One line of the report.

    Attributes:
        check: what was looked at. status: fail: the gateway does not start, or serves nothing; warn: it does, but not all of it, or slowly.
        found: what there is. advice: what to do; "": nothing.
    """

    check: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""
