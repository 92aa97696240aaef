"""Every algorithm on every backend, and whether they agree.

From outside: `running.run`, `results.Settings`, `page.write`, `agreement`. May import spec and the shared homes.
"""
