"""Every check in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mm_gateway.cli.doctor import machine, setup
from mm_gateway.cli.doctor.finding import Finding
from mm_gateway.configuration.settings import Settings


def examine(models_file: Path | None, gateway_file: Path | None) -> Iterator[Finding]:
    """What every check finds. Where the configuration is broken, the others go by its defaults."""
    found, finding = setup.configuration(models_file, gateway_file)
    yield finding
    settings = found or Settings()
    checks: list[tuple[str, Callable[[], Finding | Iterable[Finding]]]] = [
        ("models", lambda: setup.entries(settings)),
        ("database", lambda: setup.database(settings)),
        ("access", lambda: setup.access(settings)),
        ("port", lambda: setup.port(settings.server)),
        ("packages", setup.packages),
        ("cpu", machine.processor),
        ("memory", lambda: machine.memory(settings)),
        ("gpu", lambda: machine.gpu(settings)),
        ("disks", lambda: machine.disks(settings)),
        ("hub", lambda: machine.hub(settings)),
    ]
    for name, check in checks:
        try:
            result = check()
            yield from [result] if isinstance(result, Finding) else list(result)
        except Exception as error:  # noqa: BLE001 - a machine may be broken in ways that nobody thought of, and the others are still asked for
            yield Finding(name, "fail", f"could not be looked at: {type(error).__name__}: {error}", "Please report this")
