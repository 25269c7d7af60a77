"""The live state of the fleet, and the page and the table that show it.

rings      counters of the last periods of time, in a fixed space
history    the last 15 minutes of the fleet, merged from the rings of its processes
recorder   one process's notes on the requests that it has answered
reports    the report of one replica or gateway about itself
document   the versioned document that the page and `top` read
pools      the list of pools in the document; replicas, models: its other lists
scaling    explains the number of a pool's replicas in one sentence
advice     one line of advice for each kind of error
page/      the page's own files
top        `python -m serve_app top`
client     fetches the document for it
terminal   the document as tables in a terminal
"""
