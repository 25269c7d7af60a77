"""k6's results as records; `python -m serve_app.capacity k6 run` makes them.

schedule   when k6 should have started each iteration, and which ones it did not
results    k6's lines and summary -> run.json and requests.jsonl
"""
