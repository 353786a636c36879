import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { speak } from "./i18n";
import { reachBy, subscribe } from "./ipc/engine";
import { gatherer } from "./ipc/hooks";
import type { Transport } from "./ipc/transport";
import { App } from "./shell/App";
import { preferences, recall } from "./shell/preferences";
import { SessionProvider } from "./shell/session";
import "./styles/tokens.css";
import "./styles/base.css";

/** Shows the page, with the engine behind a transport. */
export async function start(transport: Transport): Promise<void> {
  reachBy(transport);
  await recall();
  void speak(preferences().language ?? undefined);
  // The engine says what is stale; nothing that is shown is asked again on a timer. It is on this machine: no network is
  // waited for.
  const client = new QueryClient({
    defaultOptions: {
      queries: { retry: false, staleTime: Number.POSITIVE_INFINITY, networkMode: "always" },
      mutations: { networkMode: "always" },
    },
  });
  subscribe(gatherer(client));
  const root = document.getElementById("root");
  if (root === null) return;
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={client}>
        <SessionProvider>
          <App />
        </SessionProvider>
      </QueryClientProvider>
    </StrictMode>,
  );
}
