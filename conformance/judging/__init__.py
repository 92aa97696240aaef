"""How far a result may lie from the reference.

From outside: `judge`, `rounding`, `decisions`. May import cases.
"""
