// The API's dialects: fields of a request, and the parsed end of an answer.

export const dialects = {
  openai: {
    path: '/v1/chat/completions',
    limits: (tokens, stream) =>
      stream ? { max_tokens: tokens, stream_options: { include_usage: true } } : { max_tokens: tokens },
    // The usage is in an event before the final marker.
    isFinal: (event) => event === '[DONE]',
    isWhole: (body) => Boolean(body.choices && body.choices[0].finish_reason),
    usage: (event) => event.usage && [event.usage.prompt_tokens, event.usage.completion_tokens],
  },
  ollama: {
    path: '/api/chat',
    limits: (tokens) => ({ options: { num_predict: tokens } }),
    isFinal: (event) => event.done === true,
    isWhole: (body) => body.done === true,
    usage: (event) => event.done && [event.prompt_eval_count, event.eval_count],
  },
  anthropic: {
    path: '/v1/messages',
    limits: (tokens) => ({ max_tokens: tokens }),
    isFinal: (event) => event.type === 'message_stop',
    isWhole: (body) => Boolean(body.stop_reason),
    usage: (event) =>
      event.usage && event.type !== 'message_start' && [event.usage.input_tokens, event.usage.output_tokens],
  },
};

const TAIL_LINES = 12;

// {whole, promptTokens, outputTokens, error} of a body under 200, streamed or not.
export function readEnd(dialect, stream, body) {
  const events = stream ? lastEvents(body) : [parse(body)];
  const usage = events.map(dialect.usage).find(Boolean) || [];
  const failed = events.find((event) => event.error);
  const whole = stream ? events.some(dialect.isFinal) : dialect.isWhole(events[0]);
  return { whole: whole && !failed, promptTokens: usage[0], outputTokens: usage[1], error: message(failed) };
}

export function message(answer) {
  if (!answer || !answer.error) return '';
  return String(answer.error.message || answer.error);
}

export function parse(data) {
  try {
    return JSON.parse(data) || {};
  } catch (_) {
    return {};
  }
}

// The last events of SSE or NDJSON, newest first: only the end of a long answer is parsed.
function lastEvents(body) {
  const lines = body.slice(-8192).split('\n').filter((line) => line && !line.startsWith('event:'));
  return lines.slice(-TAIL_LINES).reverse().map((line) => {
    const data = line.replace(/^data: ?/, '').trim();
    return data === '[DONE]' ? data : parse(data);
  });
}
