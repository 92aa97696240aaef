"""The program's commands, a file for each kind.

From outside: what `ref_bioplaus.__main__` mounts. May import everything.
"""
