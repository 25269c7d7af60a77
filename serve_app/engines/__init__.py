"""One life cycle, four kinds of engine.

base         the Protocol of an engine, and the values that cross it
lifecycle    launched, prepared, ready, lost, launched again
choose       which engine a pool has
process      a child process; supervisor is its parent, which leaves nothing behind
http1        the hot path's HTTP client; upstream passes calls to an engine with it
ollama       an Ollama: attached, or a child process; ollama_api is its management API
llamacpp/    the embedded engine
simulated    the simulator as a child process
"""
