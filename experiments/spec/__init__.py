"""What an experiment is: its file, read and checked."""
