"""The night as the daemon sees it: datasets, registry, runs."""
