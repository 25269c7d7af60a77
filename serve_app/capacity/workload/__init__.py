"""The load on the service: arrivals, lengths and texts of requests.

    shapes    a level over time: arrivals per second, or users   ramp:to=10,up=1m,hold=5m,down=1m
    arrivals  times of arrival that follow a shape: even, Poisson, in bursts
    lengths   tokens of prompts and answers: fixed, lognormal, as in a trace
    traces    recorded requests: Azure's CSV, Mooncake's JSONL
    requests  a workload: requests in order of time
    prompts   texts of about n tokens, growing conversations
    load      the options of a load test
    scenario  a service and the load on it, for an experiment

Pure, seeded and streamed: the same options give the same requests, and a million of them need
little memory. Times are seconds from the beginning of the run.
"""
