"""Of the judge."""
