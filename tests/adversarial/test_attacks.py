"""Hostile inputs against a running gateway: each is answered as it should be, and meanwhile nobody waits who asks for something else.

    make adversarial                                         all of them; a few run with every `make test`
    .venv/bin/python -m pytest -n 0 tests/adversarial --adversarial -k 'S7'

For each, a process of its own asks for `GET /health` every 100 ms over a new connection, and reads stories of a model one after
the other. The table at the end has the longest wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest

from tests.adversarial.attack import ADMIN_KEY, CHAT, Attack, Target, chat
from tests.adversarial.attacks.all_attacks import ATTACKS
from tests.adversarial.gateway import Gateway, attacked_gateway

STALL_BOUND_S = 0.25
FOREIGN_CORES = 0.2
"""From here on the machine is busy with something else, and what a thread waited for a core is not the gateway's fault."""


@dataclass(frozen=True)
class Result:
    """What an attack did.

    Attributes:
        stall_s: the longest wait for /health. own_s: the same without waits for a core. pause_s: the longest pause of the stream.
        grown_mib: of the gateway's memory. foreign_cores: what others took of the machine meanwhile.
    """

    statuses: tuple[int, ...]
    seconds: float
    stall_s: float
    own_s: float
    pause_s: float
    grown_mib: float
    foreign_cores: float
    problems: tuple[str, ...]

    @property
    def counted_stall_s(self) -> float:
        return self.own_s if self.foreign_cores > FOREIGN_CORES else self.stall_s

    @property
    def shown_statuses(self) -> str:
        counts = {status: self.statuses.count(status) for status in sorted(set(self.statuses))}
        return " ".join(f"{status}" + (f" × {count}" if count > 1 else "") for status, count in counts.items())

    def faults(self, attack: Attack) -> list[str]:
        faults = list(self.problems)
        if wrong := sorted(set(self.statuses) - attack.answers):
            faults.append(f"answered {wrong}, not {sorted(attack.answers)[:9]}")
        if self.counted_stall_s > STALL_BOUND_S:
            faults.append(f"/health waited {self.stall_s * 1000:.0f} ms, {self.own_s * 1000:.0f} ms of them not for a core")
        if self.pause_s > attack.pause_s and self.foreign_cores <= FOREIGN_CORES:
            faults.append(f"another client's stream paused for {self.pause_s:.1f} s")
        if self.grown_mib > attack.memory_mib:
            faults.append(f"the gateway grew by {self.grown_mib:.0f} MiB")
        return faults


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with attacked_gateway(tmp_path_factory.mktemp("attacked")) as gateway:
        # The first of each kind loads what is loaded late, which is no attack's fault.
        for body in (chat(), chat(model="tight", max_tokens=2), chat(model="tiny-chat", max_tokens=4, guided_regex="[0-9]+")):
            httpx.post(f"http://127.0.0.1:{gateway.port}{CHAT}", json=body, timeout=120).raise_for_status()
        yield gateway


_SHORTEST_S = 0.3


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_nobody_waits_for_a_hostile_request(attack: Attack, gateway: Gateway, record_property: Callable[[str, object], None]) -> None:
    result = carry_out(attack, gateway)
    faults = result.faults(attack)
    if faults and gateway.process.is_running():
        # Once more: a busy machine is late by chance, a fault is there again.
        result = carry_out(attack, gateway)
        faults = result.faults(attack)
    record_property(
        "attack", [attack.name, result.shown_statuses, result.seconds, result.stall_s, result.own_s, result.pause_s, result.grown_mib]
    )
    assert not faults, "; ".join(faults) + "\n" + gateway.log.read_text(errors="replace")[-3000:]


def carry_out(attack: Attack, gateway: Gateway) -> Result:
    memory_mib, cpu_s, busy_s = gateway.memory_mib(), gateway.cpu_s(), _busy_s()
    started_s = time.monotonic()
    statuses, problem = asyncio.run(_send(attack, gateway))
    # An attack may be over before the first probe, and its effects show after it.
    time.sleep(max(0.0, started_s + _SHORTEST_S - time.monotonic()))
    ended_s = time.monotonic()
    seen = gateway.watch.between(started_s, ended_s)
    probes = [one for one in seen if one.kind == "probe"]
    problems = {one.problem for one in seen if one.problem} | ({problem} if problem else set())
    if not gateway.process.is_running() or gateway.process.status() == psutil.STATUS_ZOMBIE:
        return Result(statuses, ended_s - started_s, 0, 0, 0, 0, 0, ("the gateway is gone", *problems))
    foreign_s = (_busy_s() - busy_s) - (gateway.cpu_s() - cpu_s)
    return Result(
        statuses=statuses,
        seconds=ended_s - started_s,
        stall_s=max(one.seconds for one in probes),
        own_s=max(one.seconds - one.waited_s for one in probes),
        pause_s=max((one.seconds for one in seen if one.kind == "pause"), default=0.0),
        grown_mib=gateway.memory_mib() - memory_mib,
        foreign_cores=foreign_s / (time.monotonic() - started_s),
        problems=tuple(sorted(problems)),
    )


async def _send(attack: Attack, gateway: Gateway) -> tuple[tuple[int, ...], str]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{gateway.port}",
        headers={"authorization": f"Bearer {ADMIN_KEY}"},
        timeout=None,
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
    ) as client:
        try:
            async with asyncio.timeout(attack.limit_s):
                return tuple(await attack.send(Target(gateway.port, client, gateway.site, gateway.storage))), ""
        except TimeoutError:
            return (), f"no answer after {attack.limit_s:.0f} s"
        except (OSError, httpx.TransportError) as error:
            return (), f"the connection broke: {error!r}"


def _busy_s() -> float:
    """Seconds of all cores since the machine began, idle ones left out."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0)
