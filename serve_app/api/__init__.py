"""HTTP in three dialects: a caller's bytes to a Call, an Answer to bytes.

app         the ASGI application: routes, a guard before them, errors in the caller's dialect
build       puts the API together from settings and a dispatcher
guard       who may ask: hosts, origins, keys
http        requests and responses in terms of ASGI
body        one JSON object of a request body
endpoint    the description of an inference route
inference   the one handler of every inference route
relay       engine bytes to client bytes; the proof that an answer is complete
cut         answers that the service's own bound has cut
fields      fields that no engine obeys
openai, ollama, anthropic   the routes of each dialect
listings    models, versions, health
docs        the OpenAPI page
request_trace   notes on one request, for metrics and its log line
"""
