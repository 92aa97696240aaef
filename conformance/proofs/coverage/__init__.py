"""What is judged by what, name by name, and a fault in every name.

From outside: `table`. May import cases, checks, proofs.faults.
"""
