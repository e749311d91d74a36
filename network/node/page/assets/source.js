// source.js asks the node: a stream of reports and events, and answers to single questions.

// follow opens the stream and calls the handlers: report(body of /status), event(event) and
// connected(whether the stream is open). The browser connects again by itself, except after
// an answer that was no stream; follow does that.
export function follow(handlers, pause = 1000) {
  const stream = new EventSource("/live");
  stream.onopen = () => handlers.connected(true);
  stream.addEventListener("report", (message) => {
    pause = 1000;
    handlers.report(JSON.parse(message.data));
  });
  stream.addEventListener("event", (message) => handlers.event(JSON.parse(message.data)));
  stream.onerror = () => {
    handlers.connected(false);
    if (stream.readyState !== EventSource.CLOSED) return;
    stream.close();
    setTimeout(() => follow(handlers, Math.min(2 * pause, 30_000)), pause);
  };
}

// ask returns the JSON of a path, or undefined when the node does not answer or has no answer.
export async function ask(path) {
  try {
    const response = await fetch(path, { signal: AbortSignal.timeout(15_000) });
    return response.ok ? await response.json() : undefined;
  } catch {
    return undefined;
  }
}

// repeat calls fn, and again when its promise is done and the time is over that pause returns
// in milliseconds, while the page is visible.
export async function repeat(fn, pause) {
  for (;;) {
    if (!document.hidden) await fn();
    await new Promise((done) => setTimeout(done, pause()));
  }
}
