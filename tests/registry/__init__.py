"""Tests of ref_bioplaus/registry/."""
