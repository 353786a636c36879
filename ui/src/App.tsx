import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { Button } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { call, onSessionEnded, words } from "./ipc/tauri";
import type { Status } from "./ipc/types";
import { Fault } from "./parts/Fault";
import { SiteState } from "./parts/SiteState";
import { AuditLog } from "./screens/AuditLog";
import { Requests } from "./screens/Requests";
import { Review } from "./screens/Review";
import { SignIn } from "./screens/SignIn";

/** How often the engine is told that somebody is at work, in milliseconds. */
const ACTIVE_MS = 60_000;

type Place = { screen: "requests" } | { screen: "review"; study: string } | { screen: "audit" };

/** The window: who is here, where they are, and the state of the site above everything. */
export function App() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [person, setPerson] = useState<string | null>(null);
  const [place, setPlace] = useState<Place>({ screen: "requests" });
  const status = useQuery({ queryKey: ["status"], queryFn: () => call<Status>("status") });

  // What the window asks for by itself keeps no session alive; a person's hands do.
  useEffect(() => {
    if (person === null) return;
    let told = Date.now();
    const atWork = () => {
      if (Date.now() - told < ACTIVE_MS) return;
      told = Date.now();
      // That the session has ended is heard below.
      call("active").catch(() => {});
    };
    const events = ["pointerdown", "keydown", "wheel"];
    for (const event of events) window.addEventListener(event, atWork);
    return () => {
      for (const event of events) window.removeEventListener(event, atWork);
    };
  }, [person]);

  useEffect(
    () =>
      onSessionEnded(() => {
        client.removeQueries({ predicate: (query) => query.queryKey[0] !== "status" });
        setPerson(null);
        setPlace({ screen: "requests" });
      }),
    [client],
  );

  async function signOut() {
    await call("log_out");
    client.clear();
    setPerson(null);
    setPlace({ screen: "requests" });
  }

  const current = (here: boolean) => (here ? { "aria-current": "page" as const } : {});
  return (
    <>
      <header>
        <strong>{t("app")}</strong>
        {person !== null && (
          <nav aria-label={t("nav.label")}>
            <Button {...current(place.screen !== "audit")} onPress={() => setPlace({ screen: "requests" })}>
              {t("nav.requests")}
            </Button>
            <Button {...current(place.screen === "audit")} onPress={() => setPlace({ screen: "audit" })}>
              {t("nav.audit")}
            </Button>
          </nav>
        )}
        <span className="spacer" />
        {person !== null && <span>{person}</span>}
        {person !== null && <Button onPress={() => void signOut()}>{t("signIn.out")}</Button>}
      </header>
      <main>
        {status.error && <Fault>{words(status.error)}</Fault>}
        {status.data && <SiteState status={status.data} />}
        {person === null ? (
          <SignIn onSignedIn={setPerson} />
        ) : place.screen === "requests" ? (
          <Requests onOpen={(study) => setPlace({ screen: "review", study })} />
        ) : place.screen === "review" ? (
          <Review study={place.study} onBack={() => setPlace({ screen: "requests" })} />
        ) : (
          <AuditLog />
        )}
      </main>
    </>
  );
}
