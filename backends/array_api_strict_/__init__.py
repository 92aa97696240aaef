"""array-api-strict, which refuses what the standard does not promise."""
