"""What the machine and this process are, and how they are set; files that are written whole.

From outside: whatever its modules define.
"""
