"""The limits of a caller: counted in buckets, days and leases, for a key and its group.

quotas      the limits of one key or group, the state of its counts, and the arithmetic of both
store       a store of counts, as a limiter uses it
memory      a store of counts in this process
redis       a store of counts that many replicas share
redis_connection  connections to that Redis
estimate    the tokens of a request before an engine has counted them
days        the calendar day of `tokens_per_day`
sharing     refuses limits that several replicas would each count for themselves
limiter     reserves at the start of a request and settles at its end
"""
