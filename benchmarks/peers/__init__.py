"""Programs of others that move a file, each started as its users would."""
