"""The embedded engine: llama.cpp's own server in a child process, with SmolLM2 or any GGUF file.

engine       the driver: the launch, readiness, and the routes of a call
server       the child process
client       requests to it; refusals translates its refusals
turn         one generation: requested, read (events) and written (answers)
embeddings   texts of any length as vectors
options      Ollama's options, formats and levels of thinking in llama.cpp's terms
abilities    refusals of requests beyond a model; checked reads values of a caller's JSON
strict_tools arguments of tools with `strict: true`
translated   the routes of responses/ and messages/
native/      Ollama's routes
openai/      OpenAI's chat, completions and embeddings
responses/   OpenAI's Responses API on the chat route
messages/    Anthropic's Messages API on the chat route
prompts/     conversations, and prompts that are longer than a slot
schemas/     JSON schemas that llama.cpp obeys
gguf/        metadata of model files
"""
