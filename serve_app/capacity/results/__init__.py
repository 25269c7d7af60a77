"""The results of load tests: files, statistics and verdicts. Pure functions of records.

request_records   one record per request: run.json, requests.jsonl
cluster_samples   one sample per second of the state of Ray Serve: samples.jsonl
statistics        percentiles and rates of pooled records
slo               service-level objectives, and whether records meet them
validity          reasons why the figures of a load generator must not be used
show              a run as a table
"""
