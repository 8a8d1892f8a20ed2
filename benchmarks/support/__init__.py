"""What benchmarks share: clients and servers, workloads and checkpoints, statistics, tables in the pages of docs/."""
