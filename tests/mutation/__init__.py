"""Faults, one line each, that the tests have to notice: `make mutation` puts every one into a copy of the tree."""
