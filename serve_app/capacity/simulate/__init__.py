"""Autoscaling in virtual time: simulate a service under recorded or drawn arrivals.

events      virtual time
replica     one engine: slots, a fair queue and the speed of prefill and decode
simulated_request   one request in the service
fleet       replicas that start, serve and drain, and their cost
router      the choice of a request's replica: Serve's, the gateway's, HAProxy's
reports     metrics that reach Ray's controller, with their delays
run         one simulation: requests in, `Result` out
policies    static and oracle baselines beside Ray's own policy
compare     many settings and seeds: SLO attainment against replica-hours
validate    the simulation's error against a live experiment
"""
