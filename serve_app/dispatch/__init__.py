"""From a Call to an Answer, whether the engine is local or behind a gateway.

local              to the engine beside this replica
admission          the engine's slots, and the queue before them
model_admission    admission where models are loaded on demand, or have fewer slots
model_gate         holds calls until their model is loaded
cold_calls         the calls that it holds
model_loader       loads and unloads models, one at a time
model_observer     counts loads and unloads
model_copies       which loaded models other replicas keep loaded too
waiting_line       calls that wait for a slot or a connection
fair_queue         the order of every queue
ticket             the place of one request in it
shares             the service of keys and groups, by which it decides
ranking            the lowest of many values that change
speed              the speed of a queue
retries            whether a call that failed is sent again, and where
gateway            to a replica of the pool that serves the model
replica_pool       sends calls to the replicas of one pool
idle_connections   its connections that no call uses at the moment
openings           its connections that are being opened
connection         one connection, and how it is opened
listener           the gateway's socket, to which replicas connect
worker             the replica's side of a connection
frames             the protocol on it
placement          the choice of a replica, a pure function
pool_placement     the placement of the calls of one pool
fleet_view         a gateway's knowledge of a pool's replicas
replica_state      its knowledge of one replica
sent               one request on its way, and the engine's statistics of it
prefixes           common beginnings of prompts
engine_cache       a model of the prompts that an engine keeps
rates, learning    the learned speed of engines
reports            a replica's reports to gateways
replica_follower   a gateway's side of these reports
"""
