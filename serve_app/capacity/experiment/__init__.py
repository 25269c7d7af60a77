"""The autoscaling experiment: drive a load, watch Ray Serve scale, write a report.

experiment    start or attach to a service, run the load, write the results
  generators  Locust, k6 or the asyncio client, as child processes
  run         the load generator and the watch side by side, until replicas have settled
  watch       samples of the state of Ray Serve
recording     one finished run, and its folder
summary       the figures of a run: pure functions
scaling       time to each replica, time until the SLO is met again, flaps
hindsight     the fewest replica-seconds that would have met the SLO
series        records over time, for the plots
report        the report of one run
comparison    several runs side by side
  plots       pictures; `panels` draws one axis each
  document    paragraphs, tables and pictures as Markdown and as one HTML file
"""
