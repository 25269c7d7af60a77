"""What is asked of the service: when requests arrive, how long they are, what they say.

    shapes    a level over time: arrivals per second, or users   ramp:to=10,up=1m,hold=5m,down=1m
    arrivals  times of arrival that follow a shape: even, Poisson, in bursts
    lengths   tokens of prompts and answers: fixed, lognormal, as in a trace
    traces    recorded requests: Azure's CSV, Mooncake's JSONL
    requests  all of it together: `Request` after `Request`, in order of time
    prompts   texts of about n tokens, conversations that grow

Pure, seeded and streamed: the same options give the same requests, a million of them in little
memory. Times are seconds from the beginning of the run.
"""
