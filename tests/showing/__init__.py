"""Of how results are shown."""
