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
import type { Answer } from "../ipc/commands";
import { call, onSessionEnded } from "../ipc/engine";
import { useAnswer } from "../ipc/hooks";
import type { PersonView, Role } from "../ipc/types";

/** How often the engine is told that somebody is at work, in milliseconds. */
const ACTIVE_MS = 60_000;
/** How often the engine is asked whether the session still holds, in milliseconds: a screen that nobody touches asks
 * nothing else, and would stay for whoever passes by. */
const LOOK_MS = 30_000;

/** Somebody as the engine names them: what they typed may differ, in capitals. */
export type Somebody = Pick<Answer<"log_in">, "id" | "name" | "organisation">;

interface Session {
  who: Somebody | null;
  name: string | null;
  /** Whether the engine ended the session, so that the sign-in can say why it is there. */
  hasEnded: boolean;
  signedIn: (who: Somebody) => void;
  signOut: () => void;
}

const Here = createContext<Session>({
  who: null,
  name: null,
  hasEnded: false,
  signedIn: () => {},
  signOut: () => {},
});

/** Who is signed in at this window. The session itself lives in the app's process; no token reaches the page. */
export function SessionProvider({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const [who, setWho] = useState<Somebody | null>(null);
  const [hasEnded, setEnded] = useState(false);
  /** Id of who was here last; nobody after they signed out. */
  const last = useRef<string | null>(null);
  const isHere = who !== null;

  const forget = useCallback(() => {
    setWho(null);
    client.removeQueries({ predicate: (query) => query.queryKey[0] !== "status" });
  }, [client]);

  useEffect(
    () =>
      onSessionEnded(() => {
        // An answer that was under way when somebody signed out says nothing new.
        if (last.current === null) return;
        setEnded(true);
        forget();
      }),
    [forget],
  );

  // What the window asks for by itself keeps no session alive; a person's hands do.
  useEffect(() => {
    if (!isHere) return;
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
  }, [isHere]);

  // Nothing that is on an unattended screen may become stale, so that the end of a session has to be asked for.
  useEffect(() => {
    if (!isHere) return;
    const look = () => {
      // That the session has ended is heard above. This command only looks on: it keeps no session alive.
      call("whoami", {}).catch(() => {});
    };
    const every = setInterval(look, LOOK_MS);
    // A window that was out of sight may have slept.
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(every);
      document.removeEventListener("visibilitychange", look);
    };
  }, [isHere]);

  const session = useMemo<Session>(
    () => ({
      who,
      name: who?.name ?? null,
      hasEnded,
      signedIn: (somebody) => {
        // Who comes back after a time-out goes on where they were; anybody else begins at the beginning.
        if (somebody.id !== last.current) navigate("/");
        last.current = somebody.id;
        setEnded(false);
        setWho({ id: somebody.id, name: somebody.name, organisation: somebody.organisation });
      },
      signOut: () => {
        last.current = null;
        // Whatever the engine says, and however long it takes, nobody is signed in here any more.
        forget();
        call("log_out", {}).catch(() => {});
      },
    }),
    [who, hasEnded, forget],
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
  /** The same for what is the site's own, as `inside` of the engine: only for people of this organisation, and where no
   * role is named for each of them. Others read requests, sign them or turn them down, and no more. */
  inside: (...roles: Role[]) => boolean;
  /** Whether I may look into this site's data and results. */
  maySee: boolean;
}

/** Who may look into data and results; `VIEWERS` of the engine. */
const VIEWERS: Role[] = ["data_steward", "data_access_approver", "privacy_officer"];

/** The person who is signed in, with their roles. */
export function useMe(): Me {
  const { who } = useSession();
  const people = useAnswer("people", {}, who !== null);
  const person = people.data?.find((p) => p.id === who?.id);
  const may = (...roles: Role[]) => roles.some((role) => person?.roles.includes(role) ?? false);
  // An organisation is for good and comes with the sign-in, so that nothing is asked before it is known.
  const inside = (...roles: Role[]) => who?.organisation === null && (roles.length === 0 || may(...roles));
  return { person, may, inside, maySee: inside(...VIEWERS) };
}
