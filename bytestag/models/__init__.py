"""What describes files, directories and collections: values and their canonical bytes (pure).

====================  ======================================================================
:mod:`.canonical`     JSON, read with bounds and written for hashing
:mod:`.parts`         parts of a file, and list values that name many of them
:mod:`.fileinfo`      the description of one file
:mod:`.directory`     a snapshot of a directory
:mod:`.collection`    files under one name, as in 2012
:mod:`.safe_names`    which names from a stranger may become files here
:mod:`.torrent`       BitTorrent metainfo, read as a description of parts
====================  ======================================================================
"""
