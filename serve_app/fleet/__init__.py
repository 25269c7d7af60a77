"""The live state of the fleet, and the page and the table that show it.

rings      counters of the last periods of time, in a fixed space
history    what a fleet has done in the last 15 minutes, merged from the rings of its parts
recorder   one process's notes on the requests that it has answered
reports    what one replica or gateway tells about itself
document   the versioned document that the page and `top` read
pools      its pools; replicas, models: its other lists
scaling    why a pool has the replicas that it has, in one sentence
advice     one line of advice for each kind of error
page/      the page's own files
top        `python -m serve_app top`
"""
