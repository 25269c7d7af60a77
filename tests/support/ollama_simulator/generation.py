"""Generations that are written to a journal, and that faults break."""

import asyncio

from serve_app.go_json import encode
from serve_app.simulator import ollama, openai
from serve_app.simulator.catalogue import Catalogue
from serve_app.simulator.control import Counters
from serve_app.simulator.failures import ErrorAnswer, native
from serve_app.simulator.generation import DialectWriter, Generation, SimulatedEngine
from serve_app.simulator.model_output import Token, TokenKind
from serve_app.simulator.settings import SimulatorSettings
from serve_app.simulator.speed import CacheSlot, Decoding
from serve_app.simulator.tasks import GenerationStats, GenerationTask
from serve_app.simulator.wire import HttpResponse
from tests.support.ollama_simulator.faults import Broken, Fault
from tests.support.ollama_simulator.journal import Journal
from tests.support.ollama_simulator.settings import OllamaSettings
from tests.support.ollama_simulator.wire import OllamaResponse

_UNEXPECTED_EOF = "an error was encountered while running the model: unexpected EOF"


class OllamaEngine(SimulatedEngine):
    """Writes the journal, and lets faults break generations."""

    def __init__(
        self, settings: SimulatorSettings, catalogue: Catalogue, counters: Counters
    ) -> None:
        super().__init__(settings, catalogue, counters)
        assert isinstance(settings, OllamaSettings)
        self._journal = Journal(settings.journal)

    async def generate(
        self, task: GenerationTask, writer: DialectWriter, response: HttpResponse
    ) -> None:
        assert isinstance(response, OllamaResponse)
        if response.fault:
            await FaultyGeneration(self, task, writer, response, response.fault).run()
        else:
            await super().generate(task, writer, response)

    async def prefill(self, task: GenerationTask, slot: CacheSlot, stats: GenerationStats) -> None:
        self._journal.begin(task)
        await super().prefill(task, slot, stats)

    def count_tokens(self, task: GenerationTask, tokens: int) -> None:
        super().count_tokens(task, tokens)
        self._journal.add(task, tokens)

    def finish(self, task: GenerationTask, stats: GenerationStats, started: int) -> None:
        super().finish(task, stats, started)
        self._journal.end(task)


class FaultyGeneration(Generation):
    _response: OllamaResponse

    def __init__(
        self,
        engine: SimulatedEngine,
        task: GenerationTask,
        writer: DialectWriter,
        response: OllamaResponse,
        fault: Fault,
    ) -> None:
        super().__init__(engine, task, writer, response)
        self._fault = fault

    async def run(self) -> None:
        if self._fault.kind == "comment":
            await self._comment()
        try:
            await super().run()
        except Broken as broken:
            self._break(str(broken))

    async def _write_all(self, decoding: Decoding) -> None:
        if self._fault.within_answer:
            await self._write_up_to(min(self._fault.after_tokens, len(self._tokens)), decoding)
            await self._response.flushed()
            await self._fault.strike()
        await super()._write_all(decoding)

    def _end(self) -> None:
        if self._fault.kind == "unfinished":
            self._end_silently()
        else:
            super()._end()

    def _end_silently(self) -> None:
        """End without a final marker, as Ollama ends an answer that it gives up."""
        if self._task.stream:
            self._response.end(self._head())
        else:
            unfinished = self._writer.whole(GenerationStats())
            self._response.whole(unfinished, self._writer.whole_type)

    def _break(self, kind: str) -> None:
        if kind == "cut":
            self._response.cut()
        elif kind == "end":
            self._end_silently()
        elif self._task.stream:
            self._response.end(self._head() + _last_words(self._writer))
        else:
            raise ErrorAnswer(500, _UNEXPECTED_EOF, late=True)

    async def _comment(self) -> None:
        """Keep the stream open before its first token, as proxies of slow models do."""
        writer, fault = self._writer, self._fault
        events = self._task.stream and writer.stream_type == "text/event-stream"
        if events:
            self._response.begin(writer.stream_type, headers=writer.stream_headers)
        for _ in range(max(1, round(fault.for_s / fault.every_s))):
            if events:
                self._response.send([b": ping\n\n"])
            await asyncio.sleep(fault.every_s)


def _last_words(writer: DialectWriter) -> list[bytes]:
    """Return the end of a stream of Ollama whose engine has died."""
    match writer:
        case ollama.OllamaChatWriter() | ollama.GenerateWriter():
            return [native(_UNEXPECTED_EOF) + b"\n"]
        case openai.OpenAIChatWriter() | openai.CompletionWriter():
            # One more event, with an empty text and without the name of the model.
            (event,) = writer.chunks([Token(TokenKind.TEXT, "")])
            named = b'"model":' + encode(writer.model)
            return [event.replace(named, b'"model":""', 1)]
        case _:
            return []
