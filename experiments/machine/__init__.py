"""What this machine carries faithfully, and what spraylab costs on it."""
