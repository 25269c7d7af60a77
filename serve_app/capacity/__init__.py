"""From load tests to settings: records, a report, a service model, a plan, a simulation.

    workload/     arrivals, lengths and texts of the requests; scenarios
    clients/      send a workload: asyncio, k6 (for Locust see locustfiles/)
    results/      one record per request, one sample of the cluster per second; statistics, SLOs
    experiment/   drive a load, watch Ray Serve scale, write a report
    sweep/        find the limits of one replica; fit the service model
    planning/     from a sweep to the settings of a pool
    simulate/     play a load in virtual time; tune the autoscaler
    commands/     python -m serve_app.capacity

Imports point from commands/ to results/: commands, then simulate, experiment and planning, then
service_under_test and sweep, then clients, then workload, then results.
"""
