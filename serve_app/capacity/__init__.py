"""From load tests to settings: records -> report, service model, plan, simulation.

workload ──> load generator (Locust, k6) ──> records ──> statistics, slo ──> report
                                                └──> sweep ──> service model ──> plan
workload ──> simulation (Ray's own policy, the service model) ──> tune ──> settings
"""
