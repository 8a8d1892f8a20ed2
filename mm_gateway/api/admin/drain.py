"""`POST /admin/drain`: no new requests, so that the gateway can be stopped without ending any; `DELETE /admin/drain` takes them again."""

from __future__ import annotations

from litestar import delete, post
from litestar.datastructures import State

from mm_gateway.errors import ShuttingDownError
from mm_gateway.protocol.admin import DrainReply


@post("/admin/drain", status_code=200, sync_to_thread=False, summary="Take no new requests; those that run go on")
def drain(state: State) -> DrainReply:
    """`/health/ready` says so to balancers. Ask again until `running` is 0."""
    state.draining = True
    return _reply(state)


@delete("/admin/drain", status_code=200, sync_to_thread=False, summary="Take new requests again")
def end_drain(state: State) -> DrainReply:
    if state.stopping:
        raise ShuttingDownError("The server is shutting down, which cannot be taken back")
    state.draining = False
    return _reply(state)


def _reply(state: State) -> DrainReply:
    running = sum(ticket.on_interrupt is not None for ticket in state.admission.tickets)
    return DrainReply(draining=state.draining, running=running)
