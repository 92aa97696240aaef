"""The questions, level by level, and their answers.

From outside: `levels.checks`, `runner.run`, `outcomes`. May import cases and judging.
"""
