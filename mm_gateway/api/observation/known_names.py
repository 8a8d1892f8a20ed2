"""Names that clients made up are kept nowhere: not as labels, not in lines of the log, not in rows of usage."""

from __future__ import annotations

from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.catalog import Catalog


class KnownNames:
    """The first observer: takes a model's name out of the record of a request that failed before anything came of it, where nothing is
    known to have the name. Whether the hub has a model that a pattern allows shows only after the request began."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def finished(self, record: RequestRecord) -> None:
        if record.error is not None and record.first_output is None and not self._catalog.knows(record.model):
            record.model = ""
