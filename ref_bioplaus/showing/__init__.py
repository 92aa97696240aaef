"""How results are shown: in a terminal, as SVG and pages, in sentences; knows nothing of learning.

From outside: whatever its modules define.
"""
