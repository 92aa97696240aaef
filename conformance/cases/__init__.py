"""What is computed: networks, states, cases.

From outside: `cases.step_cases`, `networks`. May import the registry.
"""
