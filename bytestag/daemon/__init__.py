"""Daemon: from what a person asked for to a running node.

================  ==============================================================
:mod:`.settings`  what a person says about the node to run
:mod:`.keyfiles`  key files: read, checked, made
:mod:`.locking`   one process on a state directory
:mod:`.nodes`     a node that keeps its state, a client that keeps nothing
:mod:`.serving`   the headless node with its shares and its control door
================  ==============================================================
"""
