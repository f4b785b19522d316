"""What a process reads and keeps: the store here, and the network behind it."""
