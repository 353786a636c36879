// The engine behind a loopback host, for tests of the page in a browser. The desktop app's bundle does not hold this.
import type { Transport } from "./transport";
import type { Fault, Notice } from "./types";

/** How long until a lost connection is tried again, in milliseconds. */
const RETRY_MS = 500;

/** Takes the token out of the address, `#token=…`, so that neither history nor a screenshot keeps it. */
function takeToken(): string {
  const token = new URLSearchParams(location.hash.replace(/^#/, "")).get("token") ?? "";
  history.replaceState(null, "", `${location.pathname}#/`);
  return token;
}

/** The engine behind the host that served this page. */
export function devhost(): Transport {
  const token = takeToken();
  return {
    async call(command, args) {
      let answer: Response;
      try {
        answer = await fetch("/call", {
          method: "POST",
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
          body: JSON.stringify({ command, args }),
        });
      } catch {
        const away: Fault = { code: "not_running", words: "the party is not running" };
        throw away;
      }
      const body: unknown = await answer.json();
      if (!answer.ok) throw body;
      return body;
    },
    subscribe(on) {
      const listen = () => {
        const events = new EventSource(`/events?token=${encodeURIComponent(token)}`);
        events.onopen = () => on(null);
        events.onmessage = (event) => on(JSON.parse(event.data) as Notice | null);
        events.onerror = () => {
          events.close();
          setTimeout(listen, RETRY_MS);
        };
      };
      listen();
    },
  };
}
