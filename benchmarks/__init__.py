"""How fast, how cheap: the product beside its limits and its peers, in the same run. `python -m benchmarks --help`."""
