"""The content store: what a user keeps by hash, with or without a node (shell)."""
