"""Four kinds of engine with one life cycle.

base         the protocol of an engine, and its values
driver       the part that differs between engines
lifecycle    launches, prepares and watches an engine, and launches it again
choose       chooses the engine of a pool
process      a child process; supervisor is its parent, which stops all its descendants
http1        the hot path's HTTP client, http1_connection one of its connections; upstream sends
             calls to an engine with it
ollama       an Ollama: attached, or a child process; ollama_api manages its models, ollama_start
             prepares it, ollama_answers reads its JSON
llamacpp/    the embedded engine
simulated    the simulator as a child process
"""
