"""Every option is in a judged step."""
