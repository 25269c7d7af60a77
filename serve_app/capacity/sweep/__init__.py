"""Find the limits of one replica.

sweeper    raises users, then arrival rates, step by step
steps      one level of load, and where throughput saturates
measured   the measurements as a folder
model      the service model, fitted to the steps
queueing   closed forms of queues, to compare with
report     the conclusions of a sweep, computed once
"""
