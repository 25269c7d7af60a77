"""k6's results as records; `python -m serve_app.capacity k6 run` makes them.

schedule   due times of k6's iterations, matched to their starts
results    k6's lines and summary -> run.json and requests.jsonl
"""
