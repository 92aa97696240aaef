"""What a check must find."""
