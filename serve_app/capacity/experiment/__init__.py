"""The autoscaling experiment: drive a load, watch Ray scale, say what happened.

command     the command lines: `experiment` and `compare`
experiment  start or attach, run as often as asked, write
  inputs      what is asked for: a file under `scenarios/`, and what the options change
  service     the service under test: started here, or one that runs already
  generators  Locust, k6 or the reference client, as child processes
  run         generator and watch side by side, until replicas have settled
recording   one run that has been done, and what its folder says when it is read back
  summary     what records and samples say: pure functions
  scaling     time to each replica, time to the SLO met again, flaps
  least       the fewest replica-seconds that would have met the SLO
  series      records over time, for the plots
report      what is said of one run, in that order
comparison  several runs side by side
  plots       pictures; `panels` draw one axis each
  document    paragraphs, tables and pictures as Markdown and as one HTML file
"""
