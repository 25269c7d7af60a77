"""From load tests to settings: records -> report, service model, plan, simulation.

workload/ ──> scenario ──> load generators (Locust, k6, reference_client) ──> records
records ──> statistics, slo ──> experiment/ (with what Ray did: watch, samples)
        └─> steps, sweep, measured ──> model ──> plan, choices
workload/ ──> simulate/ (Ray's own policy, the service model) ──> tune
commands/   python -m serve_app.capacity
"""
