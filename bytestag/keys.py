"""Keys: 160-bit names and the XOR metric between them (pure).

Maymounkov & Mazières, "Kademlia" (2002): the distance of two keys is the integer of their XOR.
"""

from __future__ import annotations
