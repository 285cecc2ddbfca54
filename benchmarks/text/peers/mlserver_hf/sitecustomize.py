"""In every process of MLServer: a main thread that asks uvloop for its loop gets one, as until uvloop 0.21.

MLServer 1.7.1 asks so in each parallel worker before anything runs there, and newer uvloops refuse.
"""

import uvloop

refusing = uvloop.EventLoopPolicy.get_event_loop


def get_event_loop(self):
    if self._local._loop is None:
        self.set_event_loop(self.new_event_loop())
    return refusing(self)


uvloop.EventLoopPolicy.get_event_loop = get_event_loop
