import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { list } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { MembershipView, PeerView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import confirm from "../parts/Confirm.module.css";
import { Empty } from "../parts/Empty";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Name, useNameMarks } from "../parts/Name";
import { Over } from "../parts/Over";
import { TrustBadge } from "../parts/states";
import { Table } from "../parts/Table";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

/** Other members: how their keys are known here, who vouches for them, and the two things one can do about it. */
export function Peers({ federation }: { federation: MembershipView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const peers = useAnswer("peers", { federation: federation.federation });
  const marks = useNameMarks();
  const [verified, setVerified] = useState<PeerView | null>(null);
  const [vouched, setVouched] = useState<PeerView | null>(null);
  const vouch = useAction("vouch", () => setVouched(null));
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
      {peer.trust === "verified_here" && !peer.vouched_here && may("administrator") && (
        <Button about={peer.name} onPress={() => setVouched(peer)}>
          {t("federations.vouch")}
        </Button>
      )}
    </div>
  );
  return (
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
                { key: "trust", name: t("review.key"), cell: (peer) => <TrustBadge trust={peer.trust} /> },
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
      {verified && (
        <Verify federation={federation.federation} peer={verified} onClose={() => setVerified(null)} />
      )}
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
    </Card>
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
