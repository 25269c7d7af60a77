"""HTTP in three dialects: a caller's bytes become a Call, and an Answer becomes bytes.

app         the ASGI application: routes, a guard before them, errors in the caller's dialect
build       puts the API together from settings and a dispatcher
guard       admits callers by host and origin, or by their credentials
http        requests and responses in terms of ASGI
bodies      reads request bodies, few of one key at once
body        one JSON object of a request body
endpoint    the description of an inference route
urgency     a request's priority and deadline, by its headers
affinity    a caller's hint which requests belong together
inference   the one handler of every inference route
relay       relays an engine's bytes and proves that an answer is complete
cut         marks answers that the service's own bound has cut
fields      request fields that are accepted without effect
openai, ollama, anthropic   the routes of each dialect
ollama_cards    models in the terms of Ollama's listings
listings    models, versions, health
docs        the OpenAPI page
request_trace   notes on one request, for metrics and its log line
outcome     its outcome
"""
