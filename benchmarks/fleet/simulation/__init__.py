"""How fleets of replicas behave: a discrete simulation that routes by the gateway's own groups and evicts by its own residency.

`python -m benchmarks.fleet.simulation` writes the tables of docs/fleet.md, `python -m benchmarks.fleet.simulation.beside_servers` runs it
beside real gateways. `clock` has events, `figures` how fast machines are, `workload` who asks for what, `replica` one machine,
`fleet` the groups before them and the faults, `layouts` which models are where, `scenarios` what is run and shown.
"""
