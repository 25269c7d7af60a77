"""Autoscaling in virtual time: what settings would have done with some arrivals.

events      virtual time
replica     slots and a FIFO; prompts are read, answers share the engine
fleet       replicas that start, serve, drain; what they cost
router      which replica takes a request: Serve's, the gateway's, HAProxy's choice
reports     what the controller hears of the load, and when
run         all of it together: requests in, `Result` out
policies    static and oracle baselines beside Ray's own policy
compare     many settings and seeds: SLO attainment against replica-hours
validate    the same requests as a live experiment: how wrong is the simulator
"""
