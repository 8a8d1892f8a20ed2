"""The tables of docs/fleet.md.

    python -m benchmarks.fleet.simulation [--only fleet-layouts] [--workers 2] [--quick] [--dry]

Simulated times come out the same on every machine; the table of what a decision costs is measured on this one. All of it takes about a
quarter of an hour of one core.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

from benchmarks.fleet.simulation.scenarios import Result, Scenario, run
from benchmarks.fleet.simulation.tables import TABLES, decisions, measured
from benchmarks.support.tables import DOCS, machine, versions, write_section

PAGE = DOCS / "fleet.md"
DECISIONS = "fleet-decisions"


def _shorter(scenario: Scenario) -> Scenario:
    return replace(scenario, requests=scenario.requests // 10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=(*TABLES, DECISIONS), default=(*TABLES, DECISIONS), help="these tables")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/fleet.md")
    args = parser.parse_args()
    scenarios = {name: [_shorter(each) if args.quick else each for each in TABLES[name].scenarios] for name in args.only if name in TABLES}
    # Each once, however many tables show it; those that take longest at the end.
    each_once = sorted(
        dict.fromkeys(each for of in scenarios.values() for each in of), key=lambda each: (each.layout == "any", each.replicas)
    )
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        results: dict[Scenario, Result] = {}
        for result in pool.map(run, each_once):
            results[result.scenario] = result
            of = result.scenario
            told = (
                of.replicas,
                of.machine.name,
                of.layout,
                of.strategy,
                of.routing.requests_before_load,
                of.load,
                of.fault,
                of.weights,
                *measured(result),
            )
            print(f"{len(results)} of {len(each_once)}:", *told, file=sys.stderr, flush=True)
    texts = {name: TABLES[name].shown([results[each] for each in of]) for name, of in scenarios.items()}
    if DECISIONS in args.only:
        texts[DECISIONS] = f"{machine()}. {versions('mm-gateway')}.\n\n{decisions()}"
    for name, text in texts.items():
        if args.dry:
            print(f"{name}\n\n{text}\n", flush=True)
        else:
            write_section(PAGE, name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
