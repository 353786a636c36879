import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useLocation } from "wouter";
import { count } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { Icon, type IconName } from "../parts/Icon";
import { Mark } from "../parts/Mark";
import styles from "./Rail.module.css";
import { useMe } from "./session";

const PLACES: { id: IconName; to: string }[] = [
  { id: "home", to: "/" },
  { id: "requests", to: "/requests" },
  { id: "approvals", to: "/approvals" },
  { id: "jobs", to: "/jobs" },
  { id: "models", to: "/models" },
  { id: "datasets", to: "/datasets" },
  { id: "egress", to: "/egress" },
  { id: "privacy", to: "/privacy" },
  { id: "federations", to: "/federations" },
  { id: "audit", to: "/audit" },
  { id: "settings", to: "/settings" },
];

/** Places that are for people of this organisation: others would find nothing there. */
const OWN = new Set<IconName>(["jobs", "models", "datasets", "egress", "privacy", "audit"]);

/** The way to every screen: picture and word. In a narrow window it opens on demand. */
export function Rail() {
  const { t } = useTranslation();
  const [at] = useLocation();
  const [isOpen, setOpen] = useState(false);
  const toggle = useRef<HTMLSpanElement>(null);
  const status = useAnswer("status", {});
  const { inside } = useMe();
  const places = PLACES.filter(({ id }) => inside() || !OWN.has(id));
  useEffect(() => {
    if (!isOpen) return;
    const close = ({ key }: KeyboardEvent) => {
      if (key !== "Escape") return;
      setOpen(false);
      toggle.current?.querySelector("button")?.focus();
    };
    window.addEventListener("keydown", close);
    return () => window.removeEventListener("keydown", close);
  }, [isOpen]);
  const isHere = (to: string) => (to === "/" ? at === "/" : at === to || at.startsWith(`${to}/`));
  return (
    <nav aria-label={t("shell.nav")} className={styles.rail}>
      <div className={styles.top}>
        <span className={styles.brand}>
          <Mark />
          <span>Hospes</span>
        </span>
        <span ref={toggle} className={styles.toggle}>
          <Button
            kind="quiet"
            icon="menu"
            aria-expanded={isOpen}
            aria-controls="rail"
            onPress={() => setOpen(!isOpen)}
          >
            {t("shell.menu")}
          </Button>
        </span>
      </div>
      <div id="rail" className={`${styles.nav} ${isOpen ? styles.open : ""}`}>
        {places.map(({ id, to }) => (
          <Link
            key={id}
            href={to}
            className={styles.link ?? ""}
            aria-current={isHere(to) ? "page" : undefined}
            onClick={() => setOpen(false)}
          >
            <Icon name={id} />
            <span className={styles.word}>{t(`nav.${id}`)}</span>
            {id === "requests" && (status.data?.waiting ?? 0) > 0 && (
              <span className={styles.count}>
                {count(status.data?.waiting ?? 0)}
                <span className="hidden">{t("shell.waiting")}</span>
              </span>
            )}
          </Link>
        ))}
      </div>
    </nav>
  );
}
