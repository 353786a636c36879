import { type ReactNode, useEffect, useState } from "react";
import { I18nProvider } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { Route, Router, Switch } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";
import { locale } from "../i18n";
import { useAnswer, useEngine } from "../ipc/hooks";
import { Approvals } from "../screens/Approvals";
import { Audit } from "../screens/Audit";
import { Dataset } from "../screens/Dataset";
import { Datasets } from "../screens/Datasets";
import { EgressLog } from "../screens/EgressLog";
import { Failed, Locked, Starting } from "../screens/EngineStates";
import { Federation } from "../screens/Federation";
import { Federations } from "../screens/Federations";
import { FirstRun } from "../screens/FirstRun";
import { Home } from "../screens/Home";
import { Job } from "../screens/Job";
import { Jobs } from "../screens/Jobs";
import { Join } from "../screens/Join";
import { Model } from "../screens/Model";
import { Models } from "../screens/Models";
import { NewDataset } from "../screens/NewDataset";
import { NotHere } from "../screens/NotHere";
import { Privacy } from "../screens/Privacy";
import { Requests } from "../screens/Requests";
import { Review } from "../screens/Review";
import { ServiceAway } from "../screens/ServiceAway";
import { Settings } from "../screens/Settings";
import { SignIn } from "../screens/SignIn";
import styles from "./App.module.css";
import { Banners } from "./Banners";
import { Header } from "./Header";
import { Own } from "./Own";
import { Rail } from "./Rail";
import { useSession } from "./session";

/** The window: a sign-in where nobody is here, the site's screens otherwise. */
export function App() {
  useTranslation();
  const { name } = useSession();
  return (
    <I18nProvider locale={locale()}>
      {/* Where we are stands behind the #: the app's own protocol knows one page. */}
      <Router hook={useHashLocation}>{name === null ? <Door /> : <Rooms />}</Router>
    </I18nProvider>
  );
}

/** Before anybody is signed in. */
function Door() {
  return (
    <main className={styles.door}>
      <Entrance />
    </main>
  );
}

/** What the engine's state asks of whoever stands before it. */
function Entrance() {
  const about = useEngine();
  const [isLayingDown, setLayingDown] = useState(false);
  if (about.isPending) return <Starting />;
  const { engine = "service", folder = "", own_folder = "" } = about.data ?? {};
  // The engine of a new site starts while its first person is being signed in.
  if (engine === "not_set_up" || isLayingDown) return <FirstRun folder={folder} onBusy={setLayingDown} />;
  if (engine === "starting") return <Starting step={about.data?.step} />;
  if (engine === "locked") return <Locked />;
  if (typeof engine === "object") {
    if ("failed" in engine) return <Failed fault={engine.failed.fault} folder={folder} />;
    return <ServiceAway why={engine.service_away.why} folder={folder} />;
  }
  return <SignInOrBegin folder={folder} ownFolder={own_folder} />;
}

/** The engine runs. A service may still wait for somebody who sets its site up; whoever does first has done it for all. */
function SignInOrBegin({ folder, ownFolder }: { folder: string; ownFolder: string }) {
  const status = useAnswer("status", {});
  const [isLayingDown, setLayingDown] = useState(false);
  const [waited, setWaited] = useState(false);
  const isEmpty = status.data?.phase === "empty";
  useEffect(() => {
    if (isEmpty) setWaited(true);
  }, [isEmpty]);
  return (
    <>
      <Banners />
      {isEmpty || isLayingDown ? (
        <FirstRun folder={folder} ownFolder={ownFolder} onBusy={setLayingDown} />
      ) : (
        <SignIn isNew={waited} />
      )}
    </>
  );
}

/** A screen that only people of this organisation see. */
const own = (screen: ReactNode) => <Own>{screen}</Own>;

function Rooms() {
  const { t } = useTranslation();
  return (
    <div className={styles.window}>
      <button type="button" className={styles.skip} onClick={() => document.getElementById("main")?.focus()}>
        {t("shell.skip")}
      </button>
      <Rail />
      <div className={styles.column}>
        <Header />
        <main id="main" tabIndex={-1} className={styles.main}>
          <Banners />
          <Switch>
            <Route path="/" component={Home} />
            <Route path="/requests" component={Requests} />
            <Route path="/requests/:study">{({ study }) => <Review key={study} study={study} />}</Route>
            <Route path="/approvals" component={Approvals} />
            <Route path="/jobs">{own(<Jobs />)}</Route>
            <Route path="/jobs/:job">{({ job }) => own(<Job key={job} job={job} />)}</Route>
            <Route path="/models">{own(<Models />)}</Route>
            <Route path="/models/:job">{({ job }) => own(<Model key={job} job={job} />)}</Route>
            <Route path="/datasets">{own(<Datasets />)}</Route>
            <Route path="/datasets/new">{own(<NewDataset />)}</Route>
            <Route path="/datasets/:id">{({ id }) => own(<Dataset key={id} id={id} />)}</Route>
            <Route path="/egress">{own(<EgressLog />)}</Route>
            <Route path="/privacy">{own(<Privacy />)}</Route>
            <Route path="/federations" component={Federations} />
            <Route path="/federations/join" component={Join} />
            <Route path="/federations/:id">{({ id }) => <Federation key={id} id={id} />}</Route>
            <Route path="/audit" component={Audit} />
            <Route path="/settings/:part?">{({ part }) => <Settings part={part ?? "people"} />}</Route>
            <Route component={NotHere} />
          </Switch>
        </main>
      </div>
    </div>
  );
}
