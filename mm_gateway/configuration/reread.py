"""Reads the files of a running gateway again: what is valid counts, what is broken stays as it was, what needs a restart is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mm_gateway.configuration.loader import read_keys, read_sections, with_models
from mm_gateway.configuration.sections import SECTIONS
from mm_gateway.configuration.settings import Settings, SettingsFiles
from mm_gateway.errors import ConfigurationError

Signature = tuple[tuple[int, ...] | None, ...]


class Reread(msgspec.Struct, frozen=True, kw_only=True):
    """What a second look found.

    Attributes:
        settings: what is served from now on. errors: of each file that is broken, and so stays as it was.
        restart: keys of `gateway.yaml`, such as `server.port`, whose new values need a restart.
    """

    settings: Settings
    errors: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


class ReadFiles:
    """The files that settings came from, and what they said then. Blocks on the disk.

    Args:
        settings: as loaded; `files` is set. environ: as for `load_settings`.
    """

    def __init__(self, settings: Settings, files: SettingsFiles, environ: Mapping[str, str]) -> None:
        self._files = files
        self._environ = environ
        self._sections = {name: getattr(settings, name) for name in SECTIONS}
        self._watched = [path for path in (files.models, files.keys_of(settings.server)) if path is not None]

    def signature(self) -> Signature:
        """Differs once models.yaml or the key file was written, replaced, or, as Kubernetes does it, a link above it turned elsewhere."""
        return tuple(map(_signature, self._watched))

    def read(self, running: Settings) -> Reread:
        """What they say now. A file that is broken, or does not fit the others, is reported, and what it said before counts on."""
        errors: list[str] = []
        settings = running
        try:
            settings = with_models(settings, self._files)
        except ConfigurationError as error:
            errors.append(str(error))
        try:
            settings = msgspec.structs.replace(settings, keys=read_keys(settings, self._files))
        except ConfigurationError as error:
            errors.append(str(error))
        restart: tuple[str, ...] = ()
        try:
            restart = tuple(self._changed(read_sections(self._files.gateway, self._environ)))
        except ConfigurationError as error:
            errors.append(str(error))
        return Reread(settings=settings, errors=tuple(errors), restart=restart)

    def _changed(self, sections: Mapping[str, msgspec.Struct]) -> list[str]:
        return [
            f"{name}.{field}"
            for name, section in sections.items()
            for field in section.__struct_fields__
            if getattr(section, field) != getattr(self._sections[name], field)
        ]


def _signature(path: Path) -> tuple[int, ...] | None:
    """Follows links; None where there is no file now, as in the midst of a replacement."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
