# What a slot costs in memory: the embedded engine, SmolLM2-135M, 4,096 tokens of context a slot.
model=$(python -c 'from serve_app.engines.llamacpp.gguf import find_smollm2; print(find_smollm2())')
for slots in 1 2 4 8 16; do
  port=$(python -c 'from serve_app.engines.process import free_port; print(free_port())')
  LLAMACPP_ENGINE_KEY=k python -m serve_app.engines.llamacpp.server --model "$model" --alias m \
    --port "$port" --slots $slots 2>/dev/null &
  until curl -sf -o /dev/null "http://127.0.0.1:$port/health"; do sleep 0.1; done
  echo "$slots slots: $(awk '/VmRSS/ {print int($2 / 1024)}' /proc/$!/status) MiB"
  kill $! && wait $!
done
