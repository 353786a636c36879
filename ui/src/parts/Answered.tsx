import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import type { Fault } from "../ipc/types";
import styles from "./Answered.module.css";
import { FaultNotice } from "./FaultNotice";

interface Asked<T> {
  data: T | undefined;
  error: Fault | null;
  isPending: boolean;
}

/** What the engine answered, or that it is being asked, or why it did not; an older answer stays beside a fault. */
export function Answered<T>({ of, children }: { of: Asked<T>; children: (data: T) => ReactNode }) {
  const { t } = useTranslation();
  return (
    <>
      <FaultNotice fault={of.error} />
      {of.data !== undefined && children(of.data)}
      {of.data === undefined && of.error === null && (
        <div role="status" className={styles.waiting}>
          <span className={styles.bar} />
          {t("shell.loading")}
        </div>
      )}
    </>
  );
}
