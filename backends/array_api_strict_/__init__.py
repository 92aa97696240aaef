"""array-api-strict: refuses what the array API standard does not promise. Slow by design, it checks the others.

From outside: `backend.backend`. May import `base`, `ownership`, `straight` and the library.
"""
