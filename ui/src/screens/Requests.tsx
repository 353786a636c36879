import { useQuery } from "@tanstack/react-query";
import { Button } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { moment } from "../i18n";
import { call, words } from "../ipc/tauri";
import type { RequestLine } from "../ipc/types";
import { Fault } from "../parts/Fault";

/** Studies that were offered to this site, newest first. */
export function Requests({ onOpen }: { onOpen: (study: string) => void }) {
  const { t } = useTranslation();
  const requests = useQuery({ queryKey: ["requests"], queryFn: () => call<RequestLine[]>("requests") });
  return (
    <>
      <h1>{t("requests.title")}</h1>
      {requests.isPending && <p>{t("loading")}</p>}
      {requests.error && <Fault>{words(requests.error)}</Fault>}
      {requests.data?.length === 0 && <p>{t("requests.empty")}</p>}
      {requests.data && requests.data.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">{t("requests.study")}</th>
              <th scope="col">{t("requests.requester")}</th>
              <th scope="col">{t("requests.received")}</th>
              <th scope="col">{t("requests.state")}</th>
            </tr>
          </thead>
          <tbody>
            {requests.data.map((request) => (
              <tr key={request.study}>
                <td>
                  <Button className="link" onPress={() => onOpen(request.study)}>
                    {request.title}
                  </Button>
                </td>
                <td>{request.requester}</td>
                <td>{moment(request.received)}</td>
                <td>{t(`state.${request.state}`)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </>
  );
}
