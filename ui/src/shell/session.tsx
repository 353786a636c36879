import { useQueryClient } from "@tanstack/react-query";
import {
  createContext,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
} from "react";
import { navigate } from "wouter/use-hash-location";
import { call, onSessionEnded } from "../ipc/engine";
import { useAnswer } from "../ipc/hooks";
import type { PersonView, Role } from "../ipc/types";

/** How often the engine is told that somebody is at work, in milliseconds. */
const ACTIVE_MS = 60_000;

interface Session {
  name: string | null;
  /** Whether the engine ended the session, so that the sign-in can say why it is there. */
  hasEnded: boolean;
  signedIn: (name: string) => void;
  signOut: () => void;
}

const Here = createContext<Session>({ name: null, hasEnded: false, signedIn: () => {}, signOut: () => {} });

/** Who is signed in at this window. The session itself lives in the app's process; no token reaches the page. */
export function SessionProvider({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const [name, setName] = useState<string | null>(null);
  const [hasEnded, setEnded] = useState(false);
  const last = useRef<string | null>(null);

  const forget = useCallback(() => {
    setName(null);
    client.removeQueries({ predicate: (query) => query.queryKey[0] !== "status" });
  }, [client]);

  useEffect(
    () =>
      onSessionEnded(() => {
        setEnded(true);
        forget();
      }),
    [forget],
  );

  // What the window asks for by itself keeps no session alive; a person's hands do.
  useEffect(() => {
    if (name === null) return;
    let told = Date.now();
    const atWork = () => {
      if (Date.now() - told < ACTIVE_MS) return;
      told = Date.now();
      // That the session has ended is heard above.
      call("active", {}).catch(() => {});
    };
    const events = ["pointerdown", "keydown", "wheel"];
    for (const event of events) window.addEventListener(event, atWork);
    return () => {
      for (const event of events) window.removeEventListener(event, atWork);
    };
  }, [name]);

  const session = useMemo<Session>(
    () => ({
      name,
      hasEnded,
      signedIn: (who) => {
        // Who comes back after a time-out goes on where they were; anybody else begins at the beginning.
        if (who !== last.current) navigate("/");
        last.current = who;
        setEnded(false);
        setName(who);
      },
      signOut: () => {
        last.current = null;
        // Whatever the engine says, nobody is signed in here any more.
        call("log_out", {})
          .catch(() => {})
          .finally(forget);
      },
    }),
    [name, hasEnded, forget],
  );
  return <Here value={session}>{children}</Here>;
}

export function useSession(): Session {
  return useContext(Here);
}

interface Me {
  person: PersonView | undefined;
  /** Whether one of these roles is mine. Only for what is offered: the engine decides. */
  may: (...roles: Role[]) => boolean;
  /** Whether I may look into this site's data and results: in these roles, and of this organisation. */
  maySee: boolean;
}

/** Who may look into data and results; `VIEWERS` of the engine. */
const VIEWERS: Role[] = ["data_steward", "data_access_approver", "privacy_officer"];

/** The person who is signed in, with their roles. */
export function useMe(): Me {
  const { name } = useSession();
  const people = useAnswer("people", {}, name !== null);
  const person = people.data?.find((p) => p.name === name);
  const may = (...roles: Role[]) => roles.some((role) => person?.roles.includes(role) ?? false);
  return { person, may, maySee: may(...VIEWERS) && person?.organisation === null };
}
