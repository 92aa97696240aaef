"""Cases as data, for an implementation in any language.

From outside: `exchange`, `vectors`, `reading`. May import cases and judging.
"""
