"""The autoscaling experiment: drive a load, watch Ray scale, say what happened.

command    the command line
inputs     what is asked for: a file under `scenarios/`, and what the options change
service    the service under test: started here, or one that runs already
generators Locust, k6 or the reference client, as child processes
run        one run: generator and watch side by side, until replicas have settled
summary    what the records and samples say: pure functions
  scaling    time to each replica, time to the SLO met again, flaps
  least      the fewest replica-seconds that would have met the SLO
series     records over time, for the plots
plots      pictures of one run, and of several
document   paragraphs, tables and pictures as Markdown and as one HTML file
report     what the report says, in that order
"""
