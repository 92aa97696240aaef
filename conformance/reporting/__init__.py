"""What a run came to, for readers and machines.

From outside: `report`, `deviations`. May import checks, files' readers and showing.
"""
