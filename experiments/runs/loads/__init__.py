"""What is put on a fabric and measured: a file a kind of load."""
