import type { ReactNode } from "react";
import { Dialog, Heading, Modal, ModalOverlay } from "react-aria-components";
import styles from "./Over.module.css";

interface Props {
  title: string;
  isOpen: boolean;
  onClose: () => void;
  isWide?: boolean;
  /** Words are typed in it: a press beside it, which may be a slip, does not throw them away. */
  isTyped?: boolean;
  children: ReactNode;
}

/** A question in front of the screen; Escape is the safe answer. */
export function Over({ title, isOpen, onClose, isWide = false, isTyped = false, children }: Props) {
  return (
    <ModalOverlay
      isOpen={isOpen}
      onOpenChange={(open) => open || onClose()}
      isDismissable={!isTyped}
      className={styles.veil ?? ""}
    >
      <Modal className={`${styles.modal} ${isWide ? styles.wide : ""}`}>
        <Dialog className={styles.dialog ?? ""}>
          <Heading slot="title" className={styles.title ?? ""}>
            {title}
          </Heading>
          {children}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
