"""The same node in a virtual world: its time, its chance, its network.

===================  =======================================================================
:mod:`.loop`         an asyncio loop whose clock jumps
:mod:`.runtime`      clocks and randomness that follow from the loop and a seed
:mod:`.network`      datagrams with delay, loss, repetition, corruption, partitions
:mod:`.conditions`   what the network does to datagrams, here or there
:mod:`.paths`        latencies, special links, partitions
:mod:`.uplinks`      how fast a host sends, and what waits for its turn
:mod:`.nat`          boxes that translate addresses and filter
:mod:`.endpoint`     one bound address
:mod:`.world`        all three together, from beginning to end
:mod:`.process`      what one machine runs, so that it can be killed or frozen as a whole
:mod:`.cluster`      real nodes that start, stop, crash, freeze and come back
:mod:`.churn`        nodes that come and go for as long as people leave machines on
:mod:`.workload`     what users do: put and get
:mod:`.bounds`       everything in a node that grows, and how far it may
:mod:`.checkers`     judges that say from outside what is wrong, lost or stuck
:mod:`.seeds`        small random histories with every fault, judged
===================  =======================================================================
"""

from bytestag.sim.conditions import Conditions
from bytestag.sim.endpoint import VirtualEndpoint
from bytestag.sim.loop import Deadlock, VirtualLoop
from bytestag.sim.network import VirtualNetwork
from bytestag.sim.runtime import virtual_runtime
from bytestag.sim.world import Leak, World, run

__all__ = [
    "Conditions",
    "Deadlock",
    "Leak",
    "VirtualEndpoint",
    "VirtualLoop",
    "VirtualNetwork",
    "World",
    "run",
    "virtual_runtime",
]
