import { useQuery } from "@tanstack/react-query";
import { Button } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { moment } from "../i18n";
import { call, words } from "../ipc/tauri";
import type { Review as ReviewDocument } from "../ipc/types";
import { EgressList } from "../parts/EgressList";
import { Facts } from "../parts/Facts";
import { Fault } from "../parts/Fault";
import { Sign } from "../parts/Sign";

/** A request as people read it before they sign, by the Five Safes. */
export function Review({ study, onBack }: { study: string; onBack: () => void }) {
  const { t } = useTranslation();
  const query = useQuery({
    queryKey: ["review", study],
    queryFn: () => call<ReviewDocument>("review", { study, dataset: null }),
  });
  if (query.isPending) return <p>{t("loading")}</p>;
  if (query.error) return <Fault>{words(query.error)}</Fault>;
  const review = query.data;
  return (
    <article>
      <Button className="link" onPress={onBack}>
        {t("review.back")}
      </Button>
      <h1>{review.title}</h1>
      {review.banners.map((banner) => (
        <p key={banner} className="notice">
          {banner}
        </p>
      ))}
      <p>{t(`state.${review.state}`)}</p>
      <p>{review.summary}</p>
      {review.findings.length > 0 && (
        <>
          <h2>{t("review.findings")}</h2>
          <ul>
            {review.findings.map((finding) => (
              <li key={finding.rule + finding.words}>
                <strong>{finding.refuses ? t("review.refuses") : t("review.note")}</strong> {finding.words}{" "}
                <code>{finding.rule}</code>
              </li>
            ))}
          </ul>
        </>
      )}
      <h2>{t("review.project")}</h2>
      <Facts facts={review.project} />
      <h2>{t("review.people")}</h2>
      <Facts facts={review.people.facts} />
      <h3>{t("review.peers")}</h3>
      <ul>
        {review.people.peers.map((peer) => (
          <li key={peer.site}>
            {peer.name}, {peer.organisation}: {t(`review.trust.${peer.trust}`)}
          </li>
        ))}
      </ul>
      <h2>{t("review.setting")}</h2>
      <Facts facts={review.settings} />
      <h2>{t("review.computation")}</h2>
      <ol>
        {review.computation.map((sentence) => (
          <li key={sentence}>{sentence}</li>
        ))}
      </ol>
      <h2>{t("review.data")}</h2>
      <Facts facts={review.data.facts} />
      <Facts facts={[{ label: t("review.columns"), value: review.data.columns_read.join(", ") }]} />
      {review.data.columns_missing.length > 0 && (
        <Fault>
          {t("review.missing")}: {review.data.columns_missing.join(", ")}
        </Fault>
      )}
      <h2>{t("review.output")}</h2>
      {review.outputs.sentences.map((sentence) => (
        <p key={sentence}>{sentence}</p>
      ))}
      <EgressList
        items={review.outputs.items}
        runs={review.outputs.runs}
        bytes={review.outputs.bytes_in_all}
      />
      <Facts facts={[{ label: t("review.digest"), value: review.study_digest }]} />
      {review.approval_digest !== null && (
        <Facts facts={[{ label: t("review.approval"), value: review.approval_digest }]} />
      )}
      <h2>{t("review.signatures")}</h2>
      {review.opinion && (
        <p>
          {t("review.opinion", {
            name: review.opinion.by,
            view: review.opinion.view,
            text: review.opinion.text,
          })}
        </p>
      )}
      {review.signatures.length === 0 && <p>{t("review.none")}</p>}
      {review.signatures.map((signature) => (
        <p key={signature.role}>
          {t("review.signed", {
            name: signature.by,
            role: signature.role.replaceAll("_", " "),
            at: moment(signature.at),
          })}
        </p>
      ))}
      {/* Another document is another signature: what was typed for the one shown before is dropped. */}
      <Sign key={review.approval_digest} review={review} />
    </article>
  );
}
