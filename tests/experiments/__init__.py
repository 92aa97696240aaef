"""Of the training program, room for room."""
