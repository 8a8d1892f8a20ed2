"""Several processes: what groups and Ray add to a request, and a simulation of large fleets."""
