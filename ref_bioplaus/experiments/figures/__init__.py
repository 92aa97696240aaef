"""What runs look like, from their logs and checkpoints.

From outside: `curves.FIGURES`, `curves.draw`, `series.read`, `comparison`. May import training, runs, spec and showing.
"""
