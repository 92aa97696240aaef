"""Of the files inside the package."""
