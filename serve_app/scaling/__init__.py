"""The number of replicas: a pure policy that counts work and plans ahead.

work        requests in seconds of a replica, from tokens and rates
history     the load of the past minutes and of the past week
forecast    predictors of the load, judged by their own errors
reserve     replicas above the forecast, learned from waits
starts      start-up times of replicas, learned from each start
schedules   floors and ceilings of operators by the clock
memory      the load of a pool, values learned from it, and its forecasts
policy      one decision: observation and state in, target, state and explanation out
explanation why a pool has its target, as a record
state       the policy's memory as a versioned document
"""
