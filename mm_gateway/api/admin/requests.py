"""`GET /admin/requests` and `DELETE /admin/requests/{id}`: what the gateway is doing, and to end one of it."""

from __future__ import annotations

from litestar import delete, get
from litestar.datastructures import State
from litestar.params import FromPath

from mm_gateway.api.access.admission import Admission
from mm_gateway.api.observation.recent import RecentRequests, entry
from mm_gateway.errors import InvalidRequestError, NotStoredError, RequestCancelledError
from mm_gateway.protocol.admin import RequestEntry, RequestList


@get("/admin/requests", sync_to_thread=False, summary="Requests that run, and the newest that have ended")
def list_requests(state: State) -> RequestList:
    admission: Admission = state.admission
    recent: RecentRequests = state.recent_requests
    return recent.told(ticket.record for ticket in admission.tickets)


@delete("/admin/requests/{request_id:str}", status_code=200, sync_to_thread=False, summary="End a request that runs")
def cancel_request(state: State, request_id: FromPath[str]) -> RequestEntry:
    """Answers with the request as it was. Its client gets the error `request_cancelled`, in a stream after what was sent already."""
    admission: Admission = state.admission
    ticket = next((ticket for ticket in admission.tickets if ticket.record.request_id == request_id), None)
    if ticket is None:
        raise NotStoredError(f"No request with the id `{request_id[:64]}` runs, or it has ended by now")
    if ticket.on_interrupt is None:
        raise InvalidRequestError(f"The request `{request_id}` generates nothing (yet, or any more) that could be ended")
    was = entry(ticket.record)
    ticket.on_interrupt(RequestCancelledError("The operator of this gateway has ended the request"))
    return was
