import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { list, moment } from "../i18n/format";
import { visible } from "../i18n/visible";
import { useAction, useAnswer } from "../ipc/hooks";
import type { MembershipView, PeerView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import confirm from "../parts/Confirm.module.css";
import { DigestChip } from "../parts/DigestChip";
import { Empty } from "../parts/Empty";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Known } from "../parts/Known";
import { Name, useNameMarks } from "../parts/Name";
import { Over } from "../parts/Over";
import { TrustBadge } from "../parts/states";
import { Table } from "../parts/Table";
import { Words12 } from "../parts/Words12";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

/** Other members: how their keys are known here, who vouches for them, and what one can do about it. */
export function Peers({ federation }: { federation: MembershipView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const peers = useAnswer("peers", { federation: federation.federation });
  const marks = useNameMarks();
  const [verified, setVerified] = useState<PeerView | null>(null);
  const [vouched, setVouched] = useState<PeerView | null>(null);
  const [shown, setShown] = useState<PeerView | null>(null);
  const [doubted, setDoubted] = useState<PeerView | null>(null);
  const vouch = useAction("vouch", () => setVouched(null));
  const unverify = useAction("unverify_peer", () => setDoubted(null));
  // The engine names this site too where it is among them.
  const vouchers = (peer: PeerView) =>
    peer.vouched_by.map((name) => (name === federation.site_name ? t("federations.us") : name));
  const actions = (peer: PeerView) => (
    <div className={forms.actions}>
      {peer.trust !== "verified_here" && may("administrator", "data_steward") && (
        <Button about={peer.name} onPress={() => setVerified(peer)}>
          {t("federations.verify")}
        </Button>
      )}
      {peer.words != null && (
        <Button about={peer.name} onPress={() => setShown(peer)}>
          {t("federations.showWords")}
        </Button>
      )}
      {peer.trust === "verified_here" && !peer.vouched_here && !peer.absent && may("administrator") && (
        <Button about={peer.name} onPress={() => setVouched(peer)}>
          {t("federations.vouch")}
        </Button>
      )}
      {peer.trust === "verified_here" && may("administrator", "data_steward") && (
        <Button about={peer.name} onPress={() => setDoubted(peer)}>
          {t("federations.unverify")}
        </Button>
      )}
    </div>
  );
  return (
    <>
      {peers.data && <Known sites={peers.data.filter((peer) => !peer.absent)} />}
      <Card title={t("federations.peers")} lead={t("federations.peersLead")} isFlush>
        <Answered of={peers}>
          {(all) =>
            all.length === 0 ? (
              <Empty icon="federations" title={t("federations.alone")}>
                {t("federations.aloneHelp")}
              </Empty>
            ) : (
              <Table
                label={t("federations.peers")}
                items={all}
                id={(peer) => peer.site}
                columns={[
                  {
                    key: "name",
                    name: t("review.site"),
                    cell: (peer) => (
                      <Name of="site" marks={marks}>
                        {peer.name}
                      </Name>
                    ),
                  },
                  {
                    key: "organisation",
                    name: t("review.organisation"),
                    cell: (peer) => (
                      <Name of="organisation" marks={marks}>
                        {peer.organisation}
                      </Name>
                    ),
                  },
                  { key: "trust", name: t("review.key"), cell: (peer) => <Key of={peer} /> },
                  {
                    key: "vouched",
                    name: t("federations.vouchedBy"),
                    cell: (peer) => list(vouchers(peer)) || "–",
                  },
                  { key: "actions", name: t("federations.actions"), isBare: true, cell: actions },
                ]}
              />
            )
          }
        </Answered>
      </Card>
      {verified && (
        <Verify federation={federation.federation} peer={verified} onClose={() => setVerified(null)} />
      )}
      {shown && <Compared peer={shown} onClose={() => setShown(null)} />}
      <Confirm
        title={t("federations.vouchFor", { site: vouched?.name ?? "" })}
        yes={t("federations.vouch")}
        isOpen={vouched !== null}
        action={vouch}
        onClose={() => setVouched(null)}
        onYes={() => vouched && vouch.mutate({ federation: federation.federation, site: vouched.site })}
      >
        <p>{t("federations.vouchHelp")}</p>
      </Confirm>
      <Confirm
        title={t("federations.unverifyPeer", { site: doubted?.name ?? "" })}
        yes={t("federations.unverify")}
        isDangerous
        reason={t("approvals.reason")}
        isOpen={doubted !== null}
        action={unverify}
        onClose={() => setDoubted(null)}
        onYes={({ reason }) =>
          doubted && unverify.mutate({ federation: federation.federation, site: doubted.site, reason })
        }
      >
        <p>{t("federations.unverifyHelp")}</p>
      </Confirm>
    </>
  );
}

/** How a key is trusted, and since when it is or is no longer; an engine that is older than this page does not say. */
function Key({ of }: { of: PeerView }) {
  const { t } = useTranslation();
  return (
    <>
      <TrustBadge trust={of.trust} />
      {of.compared != null && (
        <div className={forms.small}>
          {t("federations.comparedBy", { person: visible(of.compared.by), at: moment(of.compared.at) })}
        </div>
      )}
      {of.revoked != null && (
        <div className={forms.small}>{t("federations.revokedOn", { at: moment(of.revoked) })}</div>
      )}
      {of.absent && <div className={forms.small}>{t("federations.absent")}</div>}
    </>
  );
}

/** The words of a key that somebody here compared, to be read again: never of one that nobody did. */
function Compared({ peer, onClose }: { peer: PeerView; onClose: () => void }) {
  const { t } = useTranslation();
  const title = t("federations.ownWords", { site: peer.name });
  return (
    <Over title={title} isOpen onClose={onClose}>
      <p>{t("federations.wordsHelp")}</p>
      <Words12 words={peer.words ?? ""} of={title} />
      <DigestChip digest={peer.identity} of={t("federations.theirIdentity")} />
      <div className={confirm.actions}>
        <Button onPress={onClose}>{t("audit.close")}</Button>
      </div>
    </Over>
  );
}

/** Compares the words that the other site's staff read out; typed, so that nobody only nods. */
function Verify({ federation, peer, onClose }: { federation: string; peer: PeerView; onClose: () => void }) {
  const { t } = useTranslation();
  const [words, setWords] = useState("");
  const verify = useAction("verify_peer", onClose);
  return (
    <Over title={t("federations.verifyPeer", { site: peer.name })} isOpen isTyped onClose={onClose}>
      <Form
        className={forms.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          verify.mutate({ federation, site: peer.site, words });
        }}
      >
        <p>{t("federations.verifyHelp", { organisation: peer.organisation })}</p>
        <Field
          label={t("federations.theirWords")}
          name="words"
          value={words}
          onChange={setWords}
          rows={3}
          isMono
        />
        <FaultNotice fault={verify.error} />
        <div className={confirm.actions}>
          <Button onPress={onClose}>{t("parts.cancel")}</Button>
          <Button type="submit" kind="primary" isPending={verify.isPending}>
            {t("federations.compare")}
          </Button>
        </div>
      </Form>
    </Over>
  );
}
