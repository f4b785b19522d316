"""The event reactor is asyncio: clock, reactor, scheduler, tasks, slots, observers.

===================  =======================================================================
:mod:`.runtime`      clock, randomness and blocking work, injected once
:mod:`.observer`     a list of callbacks that is called like a function
:mod:`.reactor`      owns the loop, the root of all tasks, and named events
:mod:`.scheduler`    puts events into the reactor at their time
:mod:`.tasks`        an asyncio task with progress, hooks, and a result for other threads
:mod:`.slots`        a bounded place to run tasks in
:mod:`.line`         so many at one time as a function says, in order
:mod:`.together`     tasks that are one piece of work
:mod:`.heap`         memory that was freed is kept for what comes next
:mod:`.batcher`      what waits together is done together, off the loop
===================  =======================================================================
"""

from bytestag.events.batcher import Batcher
from bytestag.events.observer import Observer
from bytestag.events.reactor import EventID, EventQueueFull, EventReactor
from bytestag.events.runtime import Runtime, system_runtime
from bytestag.events.scheduler import EventScheduler, EventSchedulerEntry
from bytestag.events.slots import FnTaskSlot, SlotFull
from bytestag.events.tasks import FnTask, Task, TaskStopped

__all__ = [
    "Batcher",
    "EventID",
    "EventQueueFull",
    "EventReactor",
    "EventScheduler",
    "EventSchedulerEntry",
    "FnTask",
    "FnTaskSlot",
    "Observer",
    "Runtime",
    "SlotFull",
    "Task",
    "TaskStopped",
    "system_runtime",
]
