"""The commands and what the pytest plugin runs.

From outside: `conformance.conformance_app`. May import everything in conformance.
"""
