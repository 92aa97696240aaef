"""An experiment as a value: read, changed, checked, built.

From outside: `experiment`, `checking.checked`, `building.build`, `phases`. May import registry, showing and data.
"""
