"""From a Call to an Answer, whether the engine is local or behind a gateway.

local          to the engine beside this replica
admission      the engine's slots, and the queue before them
fair_queue     the order of every queue
shares         the service of keys and groups, by which it decides
ranking        the least of many values that change
speed          the speed of a queue
retries        whether a call that failed is sent again, and where
gateway        to a replica of the pool that serves the model
replica_pool   the gateway's connections to the replicas of one pool
connection     one of them, and how it is opened
listener       the gateway's socket, to which replicas connect
worker         the replica's side of such a connection
frames         the protocol on it
"""
