"""Every algorithm and modification by name, and the tables made of them."""
