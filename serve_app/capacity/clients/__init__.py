"""Load generators, and the code that they share.

chat             one chat request in each dialect: body and parsed chunks
client_request   one request from its intended start to its record
asyncio_client   the plain asyncio load generator
k6/              k6's results as records
"""
